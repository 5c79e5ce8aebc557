//! `/corelane/format`: version of what Corelane keeps in ZooKeeper beside Kafka's znodes.

use super::json::{Fields, Object, ZnodeError};

pub const FORMAT_PATH: &str = "/corelane/format";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Of the newest broker that has written.
    pub version: i32,
    /// Brokers that know a smaller version only must not take part.
    pub oldest_reader: i32,
}

impl Format {
    /// Written and read by this version.
    pub const CURRENT: Format = Format { version: 1, oldest_reader: 1 };

    pub fn encode(self) -> Vec<u8> {
        Object::new(None).field("version", self.version).field("oldest_reader", self.oldest_reader).into_bytes()
    }

    /// The format in `bytes`, where this version may take part in it.
    pub fn decode(bytes: &[u8]) -> Result<Format, ZnodeError> {
        let fields = Fields::parse(FORMAT_PATH, bytes)?;
        let format = Format { version: fields.number("version")?, oldest_reader: fields.number("oldest_reader")? };
        if format.oldest_reader > Format::CURRENT.version {
            let (found, known) = (format.oldest_reader.into(), Format::CURRENT.version.into());
            return Err(ZnodeError::Newer { path: FORMAT_PATH.to_owned(), found, known });
        }
        if format.oldest_reader < 1 || format.version < format.oldest_reader {
            return Err(fields.damaged("\"oldest_reader\" is not between 1 and \"version\""));
        }
        Ok(format)
    }
}
