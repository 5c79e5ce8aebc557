//! A plain client of the pages that brokers serve over HTTP.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Longest wait for a look.
const WITHIN: Duration = Duration::from_secs(2);
/// A scrape of ten thousand partitions is a tenth of this.
const MOST_BYTES: u64 = 64 << 20;

/// The body of `http://address path`. Blocks.
pub(super) fn get(address: &str, path: &str) -> Result<String, String> {
    let answer = ask(address, path).map_err(|error| format!("http://{address}{path}: {error}"))?;
    body(&answer).map_err(|why| format!("http://{address}{path}: {why}"))
}

fn ask(address: &str, path: &str) -> io::Result<String> {
    let resolved = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&resolved, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_write_timeout(Some(WITHIN))?;
    // By HTTP/1.0 the answer is in one piece, and its end is the connection's.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer)?;
    String::from_utf8(answer).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn body(answer: &str) -> Result<String, String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("this is no HTTP")?;
    match head.split_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        // The broker's own words.
        Some("403") => Err(serde_json::from_str::<serde_json::Value>(body)
            .ok()
            .and_then(|body| body["error"].as_str().map(str::to_owned))
            .unwrap_or_else(|| "forbidden".to_owned())),
        _ => Err(head.lines().next().unwrap_or_default().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_bodies_or_reasons() {
        assert_eq!(body("HTTP/1.0 200 OK\r\na: b\r\n\r\nx 1\n"), Ok("x 1\n".to_owned()));
        assert_eq!(body("HTTP/1.0 403 Forbidden\r\n\r\n{\"error\": \"no\"}"), Err("no".to_owned()));
        assert_eq!(body("HTTP/1.0 404 Not Found\r\n\r\n"), Err("HTTP/1.0 404 Not Found".to_owned()));
        assert!(body("\0\0\0\x05").is_err());
    }
}
