//! The parts of a payload that have no field in the event.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The parts of a payload that have no field in the event: an object, kept as JSON text.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Unmapped(Box<RawValue>);

impl Unmapped {
    /// Writes `rest`, which must be an object.
    pub(crate) fn of(rest: &impl Serialize) -> Self {
        Self(serde_json::value::to_raw_value(rest).expect("JSON can be written again"))
    }

    /// The object as JSON text.
    pub fn as_json(&self) -> &str {
        self.0.get()
    }

    /// The fields of the object.
    ///
    /// # Errors
    /// If a field has a name to which `serde_json` gives a special meaning, and a value that does not fit that meaning.
    pub fn fields(&self) -> serde_json::Result<Map<String, Value>> {
        serde_json::from_str(self.as_json())
    }
}

impl Default for Unmapped {
    fn default() -> Self {
        Self::of(&Map::new())
    }
}

impl From<Map<String, Value>> for Unmapped {
    fn from(fields: Map<String, Value>) -> Self {
        Self::of(&fields)
    }
}

impl PartialEq for Unmapped {
    fn eq(&self, other: &Self) -> bool {
        // Equal texts can be escaped in different ways.
        self.as_json() == other.as_json()
            || matches!((self.fields(), other.fields()), (Ok(ours), Ok(theirs)) if ours == theirs)
    }
}

impl<'de> Deserialize<'de> for Unmapped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        if !text.get().starts_with('{') {
            return Err(D::Error::custom("`unmapped` is neither an object nor null"));
        }
        Ok(Self(text))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Unmapped {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Map::<String, Value>::schema_name()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Map::<String, Value>::json_schema(generator)
    }
}
