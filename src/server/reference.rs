//! The protocol for people: the APIs of Kafka's brokers, those served here, and the differences.
//! `docs/PROTOCOL.md` (`corelane protocol --markdown`) and the terminal. Served versions come from
//! [`APIS`], Kafka's from [`KAFKA_APIS`].

mod kafka_apis;

use std::fmt::Write;

use kafka_apis::{ALL_REQUESTS, Absence, Difference, Here, KAFKA_APIS, KAFKA_VERSION, KafkaApi};

use super::dispatch::APIS;
use crate::protocol::ApiSpec;

const INTRODUCTION: &str = "\
# Protocol

This page is generated from the tables in `src/server/` by `corelane protocol --markdown`; tests compare the two, and hold
every API that ApiVersions names to a row here.

Corelane speaks Kafka's protocol: messages of a length of four bytes and a body, request headers v1 and v2, tagged fields
(KIP-482), ApiVersions with features (KIP-35, KIP-511, KIP-584). A request of an API or a version that ApiVersions does not
name ends its connection, as with Kafka; only ApiVersions itself is answered with UNSUPPORTED_VERSION and the ranges.
`kafka-broker-api-versions` prints the ranges of a running broker, and `scripts/compare-tools` compares what Kafka's own tools
print of both.

";

const NOTES: &str = "\
Produce is named from version 0 and served from version 3 on, by Kafka and here: librdkafka up to 2.8 sends uncompressed
batches to a broker that does not name v0 (KAFKA-18659). Version 6 of InitProducerId (KIP-939) is unstable in Kafka and off.

";

/// The whole page.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    let _ = write!(page, "## Served\n\nThe ranges are those that a broker of Kafka {KAFKA_VERSION} names.\n\n");
    let _ = writeln!(page, "| Key | API | Versions | Kafka {KAFKA_VERSION} |\n|---:|---|---|---|");
    for (api, spec) in served() {
        let _ = writeln!(page, "| {} | {} | {} | {} |", api.key, api.name, range(spec.min, spec.max), api.versions());
    }
    let _ = write!(page, "\n{NOTES}## Differences from Kafka\n\n");
    page.push_str(
        "An API without a row answers as Kafka does, as far as the tests that run against both can tell.\n\n",
    );
    page.push_str("| API | Here | Why |\n|---|---|---|\n");
    let row = |page: &mut String, name: &str, difference: &Difference| {
        let _ = writeln!(page, "| {name} | {} | {} |", difference.here, difference.why);
    };
    ALL_REQUESTS.iter().for_each(|difference| row(&mut page, "all", difference));
    for (api, _) in served() {
        api.differences().iter().for_each(|difference| row(&mut page, api.name, difference));
    }
    page.push_str("\n## Not served\n\nThe other APIs of Kafka's brokers. They are not named by ApiVersions.\n\n");
    for absence in Absence::ALL {
        let absent: Vec<_> = KAFKA_APIS.iter().filter(|api| api.here == Here::Absent(absence)).collect();
        let _ = write!(page, "### {}\n\n{}\n\n", absence.title(), absence.reason());
        let _ = writeln!(page, "| Key | API | Kafka {KAFKA_VERSION} |\n|---:|---|---|");
        for api in absent {
            let _ = writeln!(page, "| {} | {} | {} |", api.key, api.name, api.versions());
        }
        page.push('\n');
    }
    page.push_str(
        "Kafka's controllers have APIs of their own (Vote, BrokerRegistration, AlterPartition and others), on listeners of \
         their own. There is no quorum here: brokers change metadata in their store\n([CLUSTER.md](CLUSTER.md)) and speak \
         to each other by ApiVersions, Fetch, AddPartitionsToTxn and WriteTxnMarkers. LeaderAndIsr, StopReplica, \
         UpdateMetadata and ControlledShutdown,\nby which brokers of Kafka 3.9 hear of changes, are served neither here \
         nor by Kafka 4.\n",
    );
    page
}

/// Every API of Kafka's brokers, a line each.
pub fn plain() -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{:>3} {:<30} {:<9} Kafka {KAFKA_VERSION}", "key", "API", "versions");
    for api in KAFKA_APIS {
        let here = api.spec().map_or_else(|| "-".to_owned(), |spec| range(spec.min, spec.max));
        let _ = writeln!(text, "{:>3} {:<30} {here:<9} {}", api.key, api.name, api.versions());
    }
    text
}

fn served() -> impl Iterator<Item = (&'static KafkaApi, &'static ApiSpec)> {
    KAFKA_APIS.iter().filter_map(|api| Some((api, api.spec()?)))
}

fn range(min: i16, max: i16) -> String {
    if min == max { min.to_string() } else { format!("{min}-{max}") }
}

impl KafkaApi {
    fn spec(&self) -> Option<&'static ApiSpec> {
        APIS.iter().find(|spec| spec.key as i16 == self.key)
    }

    fn versions(&self) -> String {
        range(self.oldest, self.newest)
    }

    fn differences(&self) -> &'static [Difference] {
        match self.here {
            Here::Served(differences) => differences,
            Here::Absent(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/PROTOCOL.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        let fresh = markdown();
        let first = page.lines().zip(fresh.lines()).find(|(old, new)| old != new);
        assert!(page == fresh, "run `corelane protocol --markdown > docs/PROTOCOL.md`; first difference: {first:?}");
    }

    #[test]
    fn pages_count_the_apis_right() {
        for page in ["README.md", "CHANGELOG.md"] {
            let text = std::fs::read_to_string(format!("{}/{page}", env!("CARGO_MANIFEST_DIR"))).unwrap_or_default();
            assert!(text.contains(&format!("{} APIs", APIS.len())), "{page} has another number than {}", APIS.len());
        }
    }

    #[test]
    fn every_api_served_has_a_row_and_no_other_says_so() {
        for spec in APIS {
            let row = KAFKA_APIS.iter().find(|api| api.key == spec.key as i16);
            assert!(row.is_some_and(|api| matches!(api.here, Here::Served(_))), "{:?} has no row", spec.key);
            assert_eq!(row.map(|api| api.name.to_owned()), Some(format!("{:?}", spec.key)));
        }
        for api in KAFKA_APIS.iter().filter(|api| api.spec().is_none()) {
            assert!(matches!(api.here, Here::Absent(_)), "{} is not served", api.name);
        }
    }

    #[test]
    fn versions_that_differ_from_kafkas_have_a_reason() {
        for (api, spec) in served() {
            let same = (api.oldest, api.newest) == (spec.min, spec.max);
            assert!(same || api.differences().iter().any(|d| d.here.contains("ersion")), "{}", api.name);
        }
    }

    #[test]
    fn rows_stand_in_the_order_of_keys_and_fit_into_a_table() {
        assert!(KAFKA_APIS.windows(2).all(|pair| pair[0].key < pair[1].key), "sorted, each once");
        let cells = KAFKA_APIS.iter().flat_map(|api| api.differences()).chain(ALL_REQUESTS);
        for cell in cells.flat_map(|difference| [difference.here, difference.why]) {
            assert!(!cell.is_empty() && !cell.contains('|') && !cell.contains('\n'), "{cell}");
        }
    }
}
