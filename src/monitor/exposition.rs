//! Values of metrics, and the formats in which they are told. The formats are prometheus-client's.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NativeHistogram, NativeHistogramBuckets,
    NoLabelSet, prometheus_protobuf, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use crate::observe::metrics::{Kind, Metric, Spread};

/// The value of a label.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    Text(Cow<'static, str>),
    Shared(Arc<str>),
}

impl Word {
    fn as_str(&self) -> &str {
        match self {
            Word::Text(text) => text,
            Word::Shared(text) => text,
        }
    }
}

impl From<&'static str> for Word {
    fn from(text: &'static str) -> Word {
        Word::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Word {
    fn from(text: String) -> Word {
        Word::Text(Cow::Owned(text))
    }
}

impl From<Arc<str>> for Word {
    fn from(text: Arc<str>) -> Word {
        Word::Shared(text)
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl From<$number> for Word {
            fn from(number: $number) -> Word {
                number.to_string().into()
            }
        })*
    };
}

numbers!(i16, u16, i32);

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Whole(u64),
    Real(f64),
    Spread(Box<Spread>),
}

/// The series of one metric.
#[derive(Debug)]
pub(super) struct Series {
    metric: &'static Metric,
    points: Vec<(Vec<Word>, Value)>,
}

impl Series {
    pub fn of(metric: &'static Metric) -> Series {
        Series { metric, points: Vec::new() }
    }

    fn push(&mut self, labels: Vec<Word>, value: Value) {
        debug_assert_eq!(labels.len(), self.metric.labels.len(), "{}", self.metric.name);
        self.points.push((labels, value));
    }

    pub fn whole<const N: usize>(&mut self, labels: [Word; N], value: u64) {
        self.push(labels.into(), Value::Whole(value));
    }

    pub fn real<const N: usize>(&mut self, labels: [Word; N], value: f64) {
        self.push(labels.into(), Value::Real(value));
    }

    pub fn spread<const N: usize>(&mut self, labels: [Word; N], spread: Spread) {
        self.push(labels.into(), Value::Spread(Box::new(spread)));
    }
}

/// Everything that one scrape tells.
#[derive(Debug, Default)]
pub(super) struct Scrape(pub Vec<Series>);

/// A format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' text, 0.0.4.
    Text,
    OpenMetrics,
    /// Prometheus' messages, with native histograms.
    Protobuf,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// The one that `accept` prefers; text where it names none of them.
    pub fn accepted(accept: &str) -> Format {
        let mut best = (Format::Text, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
            let kind = parts.next().unwrap_or_default();
            let parameters: Vec<(String, String)> = parts
                .filter_map(|part| part.split_once('=').map(|(name, value)| (name.trim().to_owned(), unquoted(value))))
                .collect();
            let given = |name: &str| parameters.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
            let format = match kind.as_str() {
                "application/vnd.google.protobuf"
                    if given("proto") == Some("io.prometheus.client.metricfamily")
                        && given("encoding").is_none_or(|encoding| encoding == "delimited") =>
                {
                    Format::Protobuf
                }
                "application/openmetrics-text" if given("version").is_none_or(|version| version.starts_with("1.")) => {
                    Format::OpenMetrics
                }
                "text/plain" | "text/*" | "*/*" => Format::Text,
                _ => continue,
            };
            let quality: f64 = given("q").map_or(1.0, |q| q.parse().unwrap_or_default());
            if quality > best.1 {
                best = (format, quality);
            }
        }
        best.0
    }
}

fn unquoted(text: &str) -> String {
    text.trim().trim_matches('"').to_owned()
}

/// The whole answer.
pub(super) fn write(scrape: Scrape, format: Format) -> Result<Vec<u8>, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    match format {
        Format::Text => {
            let mut out = String::new();
            prometheus_text::encode(&mut out, &registry)?;
            Ok(out.into_bytes())
        }
        Format::OpenMetrics => {
            let mut out = String::new();
            text::encode(&mut out, &registry)?;
            Ok(out.into_bytes())
        }
        Format::Protobuf => prometheus_protobuf::encode_to_vec(&registry).map_err(|_| fmt::Error),
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for Series { metric, points } in self.0.iter().filter(|series| !series.points.is_empty()) {
            let (name, kind) = match metric.kind {
                // Each format has its own way with the ending.
                Kind::Counter => (metric.name.strip_suffix("_total").unwrap_or(metric.name), MetricType::Counter),
                Kind::Gauge => (metric.name, MetricType::Gauge),
                Kind::Histogram => (metric.name, MetricType::Histogram),
            };
            let mut family = encoder.encode_descriptor(name, metric.help, None, kind)?;
            for (words, value) in points {
                match words.is_empty() {
                    true => value.encode(metric.kind, &mut family)?,
                    false => value.encode(metric.kind, &mut family.encode_family(&Labels { metric, words })?)?,
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Labels<'a> {
    metric: &'static Metric,
    words: &'a [Word],
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> Result<(), fmt::Error> {
        for (label, word) in self.metric.labels.iter().zip(self.words) {
            use prometheus_client::encoding::EncodeLabel;
            (*label, word.as_str()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

impl Value {
    fn encode(&self, kind: Kind, encoder: &mut MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let none: Option<&Exemplar<NoLabelSet, f64>> = None;
        match (self, kind) {
            (Value::Whole(whole), Kind::Counter) => encoder.encode_counter(whole, none),
            (Value::Real(real), Kind::Counter) => encoder.encode_counter(real, none),
            (Value::Whole(whole), _) => encoder.encode_gauge(whole),
            (Value::Real(real), _) => encoder.encode_gauge(real),
            (Value::Spread(spread), _) => encode_spread(spread, encoder),
        }
    }
}

fn encode_spread(spread: &Spread, encoder: &mut MetricEncoder<'_>) -> Result<(), fmt::Error> {
    let (zero_count, buckets) = spread.native();
    let (mut spans, mut deltas): (Vec<(i32, u32)>, Vec<i64>) = (Vec::new(), Vec::new());
    let (mut next, mut before) = (None, 0);
    for (index, count) in buckets {
        let gap = index - next.unwrap_or(0);
        match spans.last_mut() {
            Some((_, length)) if gap == 0 => *length += 1,
            _ => spans.push((gap, 1)),
        }
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        deltas.push(count - before);
        (next, before) = (Some(index + 1), count);
    }
    let native = NativeHistogram {
        schema: Spread::schema(),
        zero_threshold: Spread::zero_threshold(),
        zero_count,
        negative: NativeHistogramBuckets { spans: &[], deltas: &[] },
        positive: NativeHistogramBuckets { spans: &spans, deltas: &deltas },
        created: None,
    };
    let (sum, count) = (spread.sum_seconds(), spread.count());
    encoder.encode_histogram_with_native::<NoLabelSet>(sum, count, &spread.told(), None, native)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::{Durations, metric};
    use std::time::Duration;

    fn scrape() -> Scrape {
        let mut requests = Series::of(&metric::REQUESTS);
        requests.whole(["Produce".into(), 13i16.into()], 7);
        let mut build = Series::of(&metric::BUILD);
        build.whole(["0.1.0 \"odd\"\n\\".to_owned().into()], 1);
        let durations = Durations::default();
        for duration in [1, 1, 9].map(Duration::from_millis) {
            durations.record(duration);
        }
        let mut spread = Spread::default();
        durations.add_to(&mut spread);
        let mut stages = Series::of(&metric::REQUEST_STAGES);
        stages.spread([Arc::<str>::from("Produce").into(), "sent".into()], spread);
        let mut cpu = Series::of(&metric::CPU);
        cpu.real([], 1.5);
        Scrape(vec![requests, build, Series::of(&metric::READY), stages, cpu])
    }

    fn text_in(format: Format) -> String {
        String::from_utf8(write(scrape(), format).unwrap()).unwrap()
    }

    #[test]
    fn text_is_as_prometheus_reads_it() {
        let text = text_in(Format::Text);
        for line in [
            "# TYPE corelane_requests_total counter",
            "corelane_requests_total{api=\"Produce\",version=\"13\"} 7",
            "corelane_build_info{version=\"0.1.0 \\\"odd\\\"\\n\\\\\"} 1",
            "# TYPE corelane_request_stage_seconds histogram",
            "corelane_request_stage_seconds_bucket{le=\"0.001\",api=\"Produce\",stage=\"sent\"} 0",
            "corelane_request_stage_seconds_count{api=\"Produce\",stage=\"sent\"} 3",
            "process_cpu_seconds_total 1.5",
        ] {
            let sorted = |line: &str| {
                let mut parts: Vec<String> = line.split(['{', '}', ',']).map(str::to_owned).collect();
                parts.sort();
                parts
            };
            assert!(text.lines().any(|own| sorted(own) == sorted(line)), "{line} is not in\n{text}");
        }
        assert!(!text.contains("corelane_ready"), "a metric without a value is left out");
    }

    #[test]
    fn open_metrics_ends_with_its_mark_and_names_families_without_total() {
        let text = text_in(Format::OpenMetrics);
        assert!(text.ends_with("# EOF\n"));
        assert!(text.contains("# TYPE corelane_requests counter"), "{text}");
        assert!(text.contains("corelane_requests_total{api=\"Produce\",version=\"13\"} 7"), "{text}");
    }

    #[test]
    fn the_last_bucket_of_a_histogram_has_no_bound_in_any_text() {
        for format in [Format::Text, Format::OpenMetrics] {
            let text = text_in(format);
            let last = text.lines().rfind(|line| line.starts_with("corelane_request_stage_seconds_bucket"));
            assert!(last.is_some_and(|line| line.contains("le=\"+Inf\"") && line.ends_with(" 3")), "{last:?}");
        }
    }

    #[test]
    fn protobuf_has_native_buckets() {
        let bytes = write(scrape(), Format::Protobuf).unwrap();
        // A sint32 of field 5, Histogram.schema.
        let schema = [5 << 3, (Spread::schema() as u8) << 1];
        assert!(bytes.windows(2).any(|window| window == schema));
        assert!(bytes.len() > 100 && bytes.len() < text_in(Format::Text).len());
    }

    #[test]
    fn the_format_is_the_one_that_is_preferred() {
        let prometheus = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                          application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::Protobuf);
        let older = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                     text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(older), Format::OpenMetrics);
        for plain in
            ["", "*/*", "text/plain", "text/html, */*;q=0.8", "application/openmetrics-text; version=9.0", "q=;,;;"]
        {
            assert_eq!(Format::accepted(plain), Format::Text, "{plain}");
        }
        let other = "application/vnd.google.protobuf; proto=else; encoding=delimited, text/plain;q=0.1";
        assert_eq!(Format::accepted(other), Format::Text);
    }
}
