//! Options of the records in a produced batch: how they are checked and compressed.

use super::{Access, OptionSpec, broker};
use crate::config::CompressionType;
use crate::config::server::ProduceValidation;
use crate::config::value::{Bounds, Kind};

/// Kafka's words for the values of `compression.type`.
const TYPES: [(&str, CompressionType); 6] = [
    ("uncompressed", CompressionType::Uncompressed),
    ("zstd", CompressionType::Zstd),
    ("lz4", CompressionType::Lz4),
    ("snappy", CompressionType::Snappy),
    ("gzip", CompressionType::Gzip),
    ("producer", CompressionType::Producer),
];
const WORDS: Bounds = Bounds::OneOf(&[TYPES[0].0, TYPES[1].0, TYPES[2].0, TYPES[3].0, TYPES[4].0, TYPES[5].0]);

/// An option of topics whose default the broker's option of the same name gives.
const fn of_topics(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    bounds: Bounds,
    access: Access,
    doc: &'static str,
) -> OptionSpec {
    OptionSpec { name, aliases: &[], topic: Some((name, bounds)), kind, default, bounds, doc, access }
}

macro_rules! level {
    ($field:ident) => {
        Access::Topic {
            set: |config, value| {
                config.$field = value.integer().try_into().map_err(|_| "does not fit".to_owned())?;
                Ok(())
            },
            get: |config| config.$field.to_string(),
        }
    };
}

pub(super) const RECORDS: &[OptionSpec] = &[
    of_topics(
        "compression.type",
        Kind::String,
        "producer",
        WORDS,
        Access::Topic {
            set: |config, value| {
                let found = TYPES.iter().find(|(word, _)| *word == value.text());
                config.compression = found.map(|(_, kind)| *kind).ok_or("is no compression type")?;
                Ok(())
            },
            get: |config| {
                let found = TYPES.iter().find(|(_, kind)| *kind == config.compression);
                found.map(|(word, _)| (*word).to_owned()).unwrap_or_default()
            },
        },
        "How batches are stored: as the producer compressed them, uncompressed, or in one codec. A batch in another codec is compressed anew on a \
         helper thread before it is appended.",
    ),
    of_topics(
        "compression.gzip.level",
        Kind::Int,
        "-1",
        Bounds::Between(-1, 9),
        Access::Topic {
            set: |config, value| {
                if value.integer() == 0 {
                    return Err("is out of bounds; it must be -1, or 1 to 9".to_owned());
                }
                config.compression_gzip_level = value.integer().try_into().map_err(|_| "does not fit".to_owned())?;
                Ok(())
            },
            get: |config| config.compression_gzip_level.to_string(),
        },
        "The level of compression.type=gzip, 1 to 9; -1: the default of zlib, 6.",
    ),
    of_topics(
        "compression.lz4.level",
        Kind::Int,
        "9",
        Bounds::Between(1, 17),
        level!(compression_lz4_level),
        "The level of compression.type=lz4. 9 stands for the fast compressor, as in Kafka; every other value for the thorough one, whose best is 12.",
    ),
    of_topics(
        "compression.zstd.level",
        Kind::Int,
        "3",
        Bounds::Between(-131_072, 22),
        level!(compression_zstd_level),
        "The level of compression.type=zstd.",
    ),
    broker(
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
    ),
];
