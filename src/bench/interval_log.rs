//! The interval log: a run's latency histograms, one a second, in HdrHistogram's own log format,
//! which its plotters read.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::serialization::interval_log::{
    IntervalLogWriter, IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};
use hdrhistogram::serialization::{V2DeflateSerializeError, V2DeflateSerializer};

use super::stats::Interval;
use crate::runtime::clock;

/// Histograms are in nanoseconds; the column with each interval's maximum is in milliseconds.
const NS_PER_MS: f64 = 1e6;
const SECOND: Duration = Duration::from_secs(1);
const WARM_UP: &str = "warm-up";

/// Where a log is written, with what its writer borrows.
pub struct LogFile<W: Write> {
    out: W,
    serializer: V2DeflateSerializer,
}

pub struct IntervalLog<'a, W: Write>(IntervalLogWriter<'a, 'a, W, V2DeflateSerializer>);

impl<W: Write> LogFile<W> {
    pub fn new(out: W) -> LogFile<W> {
        LogFile { out, serializer: V2DeflateSerializer::new() }
    }

    /// The log of a run that began `ago`; its intervals count from there.
    pub fn begin(&mut self, ago: Duration) -> io::Result<IntervalLog<'_, W>> {
        let now = Duration::from_millis(u64::try_from(clock::wall_ms()).unwrap_or(0));
        let begun = UNIX_EPOCH + now.saturating_sub(ago);
        let mut builder = IntervalLogWriterBuilder::new();
        builder
            .add_comment("[Histogram log format version 1.3]")
            .add_comment("latencies in nanoseconds, maxima in milliseconds, a line a second")
            .with_start_time(begun)
            .with_base_time(begun)
            .with_max_value_divisor(NS_PER_MS);
        let writer = builder.begin_log_with(&mut self.out, &mut self.serializer)?;
        Ok(IntervalLog(writer))
    }
}

impl<W: Write> IntervalLog<'_, W> {
    /// Writes the latencies of requests that ended in the `second`th second, counted from 1. The
    /// warm-up's are tagged.
    pub fn write(&mut self, second: u64, warming_up: bool, interval: &Interval) -> io::Result<()> {
        let tag = if warming_up { Tag::new(WARM_UP) } else { None };
        let start = SECOND * u32::try_from(second.saturating_sub(1)).unwrap_or(u32::MAX);
        let written = self.0.write_histogram(&interval.latency, start, SECOND, tag);
        written.map_err(|error| match error {
            IntervalLogWriterError::IoError(error) => error,
            IntervalLogWriterError::SerializeError(error) => serialize_error(&error),
        })
    }
}

fn serialize_error(error: &V2DeflateSerializeError) -> io::Error {
    io::Error::other(format!("the histogram cannot be written: {error:?}"))
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    #[test]
    fn a_log_is_read_back_as_it_was_written() {
        let mut file = LogFile::new(Vec::new());
        let mut log = file.begin(SECOND).unwrap();
        for second in 1..=3 {
            let mut interval = Interval::new().unwrap();
            for n in 1..=second * 1000 {
                interval.latency.record(n * 1_000_000).unwrap();
            }
            log.write(second, second == 1, &interval).unwrap();
        }
        let mut intervals = Vec::new();
        for entry in IntervalLogIterator::new(&file.out) {
            let LogEntry::Interval(interval) = entry.unwrap() else { continue };
            let bytes = base64(interval.encoded_histogram());
            let read: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
            let tag = interval.tag().map(|tag| tag.as_str().to_owned());
            assert_eq!(interval.duration(), SECOND);
            intervals.push((interval.start_timestamp().as_secs(), tag, read.len(), (interval.max() / 1000.0).round()));
        }
        let warm_up = Some(WARM_UP.to_owned());
        assert_eq!(intervals, [(0, warm_up, 1000, 1.0), (1, None, 2000, 2.0), (2, None, 3000, 3.0)]);
    }

    fn base64(text: &str) -> Vec<u8> {
        let digit = |c: u8| match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        let (mut out, mut bits, mut have) = (Vec::new(), 0u32, 0);
        for c in text.bytes().filter(|c| *c != b'=') {
            bits = bits << 6 | u32::from(digit(c));
            have += 6;
            if have >= 8 {
                have -= 8;
                out.push((bits >> have) as u8);
            }
        }
        out
    }
}
