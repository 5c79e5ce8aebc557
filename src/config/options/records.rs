//! Options of the records in a produced batch: how they are checked.

use super::{Access, OptionSpec, broker};
use crate::config::server::ProduceValidation;
use crate::config::value::{Bounds, Kind};

pub(super) const RECORDS: &[OptionSpec] = &[broker(
    "corelane.produce.validate",
    Kind::String,
    "full",
    Bounds::OneOf(&["full", "header"]),
    Access::Server {
        set: |config, value| {
            config.produce_validation = match value.text() {
                "header" => ProduceValidation::Header,
                _ => ProduceValidation::Full,
            };
            Ok(())
        },
        get: |config| match config.produce_validation {
            ProduceValidation::Full => "full".to_owned(),
            ProduceValidation::Header => "header".to_owned(),
        },
    },
    "full: every record of a produced batch is checked, as in Kafka; compressed batches are decompressed for it. header: the header and the CRC \
     alone are checked (in compacted topics the keys as well), which saves CPU where all producers are trusted: a single faulty one stops every \
     consumer of the partition.",
)];
