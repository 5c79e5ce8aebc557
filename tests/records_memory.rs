//! A batch that decompresses to more than any walk reads costs bounded memory. Measured as the
//! peak of a process of its own for each codec.

#![allow(clippy::expect_used)]

use std::io::{Read, Write};
use std::ops::ControlFlow;

use corelane::model::records::{MAX_BLOCK_BYTES, MAX_OUTPUT_BYTES, RecordError, inspect, walk};

/// One record that claims a value of 2^30 bytes, and as many zeros.
fn bomb() -> impl Read {
    const HEAD: [u8; 14] = [0x80, 0x80, 0x80, 0x80, 0x0e, 0, 0, 0, 1, 0x80, 0x80, 0x80, 0x80, 0x08];
    HEAD.chain(std::io::repeat(0).take(MAX_OUTPUT_BYTES + 4096))
}

fn batch(codec: u8, payload: &[u8]) -> Vec<u8> {
    let mut batch = vec![0; 61];
    batch[8..12].copy_from_slice(&(49 + payload.len() as i32).to_be_bytes());
    batch[16] = 2;
    batch[22] = codec;
    batch[60] = 1;
    batch.extend_from_slice(payload);
    batch
}

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the peak is reported");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number of KiB");
    kib * 1024
}

fn gzip() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
    std::io::copy(&mut bomb(), &mut encoder).expect("compresses");
    encoder.finish().expect("compresses")
}

fn snappy() -> Vec<u8> {
    let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    let mut source = bomb();
    let mut encoder = snap::raw::Encoder::new();
    loop {
        let mut block = Vec::new();
        (&mut source).take(16 << 20).read_to_end(&mut block).expect("reads");
        if block.is_empty() {
            return out;
        }
        let block = encoder.compress_vec(&block).expect("compresses");
        out.extend((block.len() as i32).to_be_bytes());
        out.extend(block);
    }
}

fn lz4() -> Vec<u8> {
    let mut encoder = lz4::EncoderBuilder::new()
        .block_size(lz4::BlockSize::Max4MB)
        .block_mode(lz4::BlockMode::Independent)
        .build(Vec::new())
        .expect("builds");
    std::io::copy(&mut bomb(), &mut encoder).expect("compresses");
    let (out, result) = encoder.finish();
    result.expect("compresses");
    out
}

fn zstd(window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("builds");
    encoder.window_log(window_log).expect("a window");
    std::io::copy(&mut bomb(), &mut encoder).expect("compresses");
    encoder.flush().expect("compresses");
    encoder.finish().expect("compresses")
}

/// Walks the batch in the file named by [`CHILD_FILE`], in a process that has done nothing else.
fn child(path: &str) {
    let batch = std::fs::read(path).expect("the parent wrote it");
    let before = peak_bytes();
    let started = std::time::Instant::now();
    let result = walk(&batch, &mut |_| ControlFlow::Continue(()));
    let inspected = inspect(&batch, MAX_OUTPUT_BYTES, &mut |_| ());
    let grown = peak_bytes() - before;
    println!("{} bytes sent, {:?}", batch.len(), started.elapsed());
    println!("grown {grown}");
    assert!(matches!(result, Err(RecordError::TooLarge { .. })), "{result:?}");
    assert!(matches!(inspected, Err(RecordError::TooLarge { .. })), "{inspected:?}");
}

const CHILD_FILE: &str = "CORELANE_TEST_BOMB";

#[test]
fn a_bomb_of_every_codec_is_given_up_in_bounded_memory() {
    if let Ok(path) = std::env::var(CHILD_FILE) {
        return child(&path);
    }
    let bombs = [
        ("gzip", batch(1, &gzip()), 1 << 20),
        ("lz4", batch(3, &lz4()), 24 << 20),
        ("zstd", batch(4, &zstd(19)), 4 << 20),
        ("snappy", batch(2, &snappy()), MAX_BLOCK_BYTES as u64),
        // Its window is held to the bound; the decoder's buffer doubles as it grows.
        ("zstd, widest window", batch(4, &zstd(27)), 3 * MAX_BLOCK_BYTES as u64),
    ];
    for (name, batch, allowed) in &bombs {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(batch).expect("room for it");
        let output = std::process::Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "a_bomb_of_every_codec_is_given_up_in_bounded_memory", "--nocapture"])
            .env(CHILD_FILE, file.path())
            .output()
            .expect("the child runs");
        let text = String::from_utf8_lossy(&output.stdout);
        println!("{name}: {text}");
        assert!(output.status.success(), "{name}: {text}");
        let grown = text.lines().find_map(|line| line.strip_prefix("grown ")).expect("the child reports");
        let grown: u64 = grown.parse().expect("a number of bytes");
        assert!(grown <= *allowed, "{name} took {grown} bytes");
    }
}
