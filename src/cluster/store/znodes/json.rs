//! JSON objects of znodes: fields that are read with the path in every error, and
//! written in Kafka's order.

use serde_json::{Map, Value};

/// A znode that cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZnodeError {
    #[error("znode {path} is damaged: {why}; put its content right with zookeeper-shell")]
    Damaged { path: String, why: String },
    #[error(
        "znode {path} is of version {found}, and this version of Corelane knows {known} at most: start a newer \
         version, one that knows it"
    )]
    Newer { path: String, found: i64, known: i64 },
    #[error("{0} cannot be kept in ZooKeeper")]
    Unsupported(String),
}

/// The fields of one znode.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    path: &'a str,
    fields: Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub fn parse(path: &'a str, bytes: &[u8]) -> Result<Fields<'a>, ZnodeError> {
        let value = serde_json::from_slice(bytes).map_err(|error| damaged(path, format!("not JSON ({error})")))?;
        match value {
            Value::Object(fields) => Ok(Fields { path, fields }),
            _ => Err(damaged(path, "not a JSON object")),
        }
    }

    pub fn damaged(&self, why: impl Into<String>) -> ZnodeError {
        damaged(self.path, why)
    }

    /// The version, which is `known` at most. Kafka writes a few as text.
    pub fn version(&self, known: i64) -> Result<i64, ZnodeError> {
        let found = match self.fields.get("version") {
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_i64(),
            None => return Err(self.damaged("it has no \"version\"")),
        };
        match found {
            Some(found) if found > known => Err(ZnodeError::Newer { path: self.path.to_owned(), found, known }),
            Some(found) if found >= 1 => Ok(found),
            _ => Err(self.damaged("its \"version\" is not a number from 1")),
        }
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    pub fn needed(&self, name: &str) -> Result<&Value, ZnodeError> {
        self.get(name).ok_or_else(|| self.damaged(format!("it has no {name:?}")))
    }

    pub fn text(&self, name: &str) -> Result<&str, ZnodeError> {
        self.needed(name)?.as_str().ok_or_else(|| self.damaged(format!("{name:?} is not a text")))
    }

    pub fn flag(&self, name: &str) -> Result<bool, ZnodeError> {
        self.needed(name)?.as_bool().ok_or_else(|| self.damaged(format!("{name:?} is neither true nor false")))
    }

    pub fn number(&self, name: &str) -> Result<i32, ZnodeError> {
        self.i32(name, self.needed(name)?)
    }

    pub fn number_or(&self, name: &str, default: i32) -> Result<i32, ZnodeError> {
        self.get(name).map_or(Ok(default), |value| self.i32(name, value))
    }

    /// A number of 64 bits, where there is one.
    pub fn long(&self, name: &str) -> Result<Option<i64>, ZnodeError> {
        let number = |value: &Value| value.as_i64().ok_or_else(|| self.damaged(format!("{name:?} is not a number")));
        self.get(name).map(number).transpose()
    }

    /// A number that Kafka writes as text.
    pub fn number_in_text(&self, name: &str) -> Result<i64, ZnodeError> {
        let number = match self.needed(name)? {
            Value::String(text) => text.parse().ok(),
            value => value.as_i64(),
        };
        number.ok_or_else(|| self.damaged(format!("{name:?} is not a number")))
    }

    pub fn object(&self, name: &str) -> Result<Option<&Map<String, Value>>, ZnodeError> {
        let object = self.get(name).map(|value| value.as_object());
        object.map(|object| object.ok_or_else(|| self.damaged(format!("{name:?} is not an object")))).transpose()
    }

    pub fn list(&self, name: &str) -> Result<Option<&Vec<Value>>, ZnodeError> {
        let list = self.get(name).map(|value| value.as_array());
        list.map(|list| list.ok_or_else(|| self.damaged(format!("{name:?} is not a list")))).transpose()
    }

    /// Numbers from 0, none of them twice.
    pub fn ids(&self, name: &str, value: &Value) -> Result<Vec<i32>, ZnodeError> {
        let list = value.as_array().ok_or_else(|| self.damaged(format!("{name:?} is not a list")))?;
        let ids = list.iter().map(|id| self.i32(name, id)).collect::<Result<Vec<i32>, _>>()?;
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != ids.len() || sorted.first().is_some_and(|id| *id < 0) {
            return Err(self.damaged(format!("{name:?} has a broker twice, or a negative one")));
        }
        Ok(ids)
    }

    fn i32(&self, name: &str, value: &Value) -> Result<i32, ZnodeError> {
        let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
        number.ok_or_else(|| self.damaged(format!("{name:?} is not a number of 32 bits")))
    }
}

pub fn damaged(path: &str, why: impl Into<String>) -> ZnodeError {
    ZnodeError::Damaged { path: path.to_owned(), why: why.into() }
}

/// An object as text, field by field. Fields of the object that it replaces, and that this version
/// does not know, follow its own.
#[derive(Debug)]
pub struct Object {
    text: String,
    written: Vec<&'static str>,
    previous: Map<String, Value>,
}

impl Object {
    /// `previous`: the bytes that are replaced. They are what decides nothing else: unreadable
    /// ones have nothing to keep.
    pub fn new(previous: Option<&[u8]>) -> Object {
        let previous = previous.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
        Object { text: String::new(), written: Vec::new(), previous }
    }

    pub fn field(self, name: &'static str, value: impl Into<Value>) -> Object {
        let value: Value = value.into();
        self.raw(name, &value.to_string())
    }

    /// A field whose value is JSON already.
    pub fn raw(mut self, name: &'static str, json: &str) -> Object {
        self.push(name, json);
        self.written.push(name);
        self
    }

    pub fn optional(self, name: &'static str, value: Option<impl Into<Value>>) -> Object {
        match value {
            Some(value) => self.field(name, value),
            None => self.absent(name),
        }
    }

    /// A known field that is left out, whatever the replaced object has.
    pub fn absent(mut self, name: &'static str) -> Object {
        self.written.push(name);
        self
    }

    /// A known field without meaning to this version: as it was, or `default`.
    pub fn kept(self, name: &'static str, default: impl Into<Value>) -> Object {
        let value = self.previous(name).cloned().unwrap_or_else(|| default.into());
        self.field(name, value)
    }

    pub fn previous(&self, name: &str) -> Option<&Value> {
        self.previous.get(name)
    }

    pub fn into_bytes(mut self) -> Vec<u8> {
        for (name, value) in std::mem::take(&mut self.previous) {
            if !self.written.contains(&name.as_str()) {
                self.push(&name, &value.to_string());
            }
        }
        format!("{{{}}}", self.text).into_bytes()
    }

    fn push(&mut self, name: &str, json: &str) {
        if !self.text.is_empty() {
            self.text.push(',');
        }
        self.text.push_str(&Value::from(name).to_string());
        self.text.push(':');
        self.text.push_str(json);
    }
}

/// `{"name":json,...}` in the given order.
pub fn object_of(fields: impl IntoIterator<Item = (String, String)>) -> String {
    let fields = fields.into_iter().map(|(name, json)| format!("{}:{json}", Value::from(name)));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}
