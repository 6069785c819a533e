//! The samples of `events/`: what providers send, as events of API Gateway, one in each file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Request;
use serde_json::{Map, Value};

use crate::Error;

/// Headers of the connection, which the sender does not set; API Gateway adds the last three.
const NOT_SENT: [&str; 8] = [
    "host",
    "content-length",
    "connection",
    "transfer-encoding",
    "x-amzn-trace-id",
    "x-forwarded-for",
    "x-forwarded-port",
    "x-forwarded-proto",
];

/// The folder `events/`.
#[derive(Debug, Clone)]
pub struct Catalogue {
    folder: PathBuf,
    names: BTreeMap<String, Vec<String>>,
}

impl Catalogue {
    /// Reads which events there are: `PROVIDER/EVENT.json`.
    pub fn read(folder: PathBuf) -> Result<Self, Error> {
        let unread = |path: &Path| {
            let path = path.display().to_string();
            move |error| Error::Fixture(format!("{path} cannot be read: {error}"))
        };
        let mut names = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).map_err(unread(&folder))? {
            let path = entry.map_err(unread(&folder))?.path();
            let folder = path.is_dir().then(|| path.file_name()).flatten();
            // The histories are events of several deliveries, with the state that they result in.
            let Some(provider) = folder.filter(|name| *name != "histories") else {
                continue;
            };
            let mut events = Vec::new();
            for entry in std::fs::read_dir(&path).map_err(unread(&path))? {
                let file = entry.map_err(unread(&path))?.file_name();
                let name = file.to_str().and_then(|file| file.strip_suffix(".json"));
                events.extend(name.filter(|name| !name.ends_with(".normalized")).map(str::to_owned));
            }
            events.sort();
            names.insert(provider.to_string_lossy().into_owned(), events);
        }
        Ok(Self { folder, names })
    }

    /// All providers with the names of their events.
    pub fn names(&self) -> &BTreeMap<String, Vec<String>> {
        &self.names
    }

    /// Reads an event. The error for an unknown event lists the known ones.
    pub fn event(&self, provider: &str, name: &str) -> Result<Fixture, Error> {
        let Some(events) = self.names.get(provider) else {
            let known: Vec<&str> = self.names.keys().map(String::as_str).collect();
            return Err(Error::Fixture(format!(
                "unknown provider {provider}; known are {}",
                known.join(", ")
            )));
        };
        if !events.iter().any(|event| event == name) {
            return Err(Error::Fixture(format!(
                "{provider} has no event {name}, only {}",
                events.join(", ")
            )));
        }
        let event = self.json(&self.folder.join(provider).join(format!("{name}.json")))?;
        Ok(Fixture {
            provider: provider.to_owned(),
            name: name.to_owned(),
            event,
        })
    }

    /// The normalized event that an event results in; `None` if nothing is published.
    pub fn normalized(&self, provider: &str, name: &str) -> Result<Option<Value>, Error> {
        let path = self.folder.join(provider).join(format!("{name}.normalized.json"));
        if path.exists() {
            self.json(&path).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The plainest event of a provider that is published: the one with the shortest name.
    pub fn plainest(&self, provider: &str) -> Result<Option<Fixture>, Error> {
        let mut names: Vec<&String> = self.names.get(provider).into_iter().flatten().collect();
        names.sort_by_key(|name| name.len());
        for name in names {
            if self.normalized(provider, name)?.is_some() {
                return self.event(provider, name).map(Some);
            }
        }
        Ok(None)
    }

    #[expect(clippy::unused_self, reason = "only files of the catalogue are read")]
    fn json(&self, path: &Path) -> Result<Value, Error> {
        let text = std::fs::read(path)
            .map_err(|error| Error::Fixture(format!("{} cannot be read: {error}", path.display())))?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::Fixture(format!("{} is not JSON: {error}", path.display())))
    }
}

/// An event of the catalogue, which may be changed before it is sent.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// The name of the provider.
    pub provider: String,
    /// The name of the event.
    pub name: String,
    /// The API Gateway event.
    pub event: Value,
}

impl Fixture {
    /// The HTTP method.
    pub fn method(&self) -> &str {
        self.event["requestContext"]["http"]["method"]
            .as_str()
            .unwrap_or("POST")
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.event["headers"].as_object()?;
        headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))?
            .1
            .as_str()
    }

    /// Sets a header, in lower case as API Gateway has it.
    pub fn set_header(&mut self, name: &str, value: impl Into<String>) {
        self.remove_header(name);
        self.event["headers"][name.to_ascii_lowercase()] = Value::String(value.into());
    }

    /// Removes a header.
    pub fn remove_header(&mut self, name: &str) {
        if let Some(headers) = self.event["headers"].as_object_mut() {
            headers.retain(|known, _| !known.eq_ignore_ascii_case(name));
        }
    }

    /// The parameters of the query in their order.
    pub fn query(&self) -> Vec<(String, String)> {
        let query = self.event["rawQueryString"].as_str().unwrap_or_default();
        form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    /// Sets the query, in all places of the event.
    pub fn set_query(&mut self, parameters: &[(String, String)]) {
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(parameters)
            .finish();
        self.event["rawQueryString"] = query.into();
        let mut joined = Map::new();
        for (name, value) in parameters {
            let value = match joined.get(name).and_then(Value::as_str) {
                Some(values) => format!("{values},{value}"),
                None => value.clone(),
            };
            joined.insert(name.clone(), value.into());
        }
        self.event["queryStringParameters"] = joined.into();
    }

    /// Sets the shop, in all places of the event.
    pub fn set_shop(&mut self, shop: &str) {
        let path = format!("/webhooks/{}/{shop}", self.provider);
        self.event["requestContext"]["http"]["path"] = path.clone().into();
        self.event["rawPath"] = path.into();
        self.event["pathParameters"]["shop"] = shop.into();
    }

    /// The body as the provider sends it.
    pub fn body(&self) -> Result<Vec<u8>, Error> {
        let body = self.event["body"].as_str().unwrap_or_default();
        if self.event["isBase64Encoded"] == true {
            BASE64
                .decode(body)
                .map_err(|error| Error::Fixture(format!("the body of {} is not base64: {error}", self.name)))
        } else {
            Ok(body.as_bytes().to_vec())
        }
    }

    /// Sets the body. Bytes that are not text are base64-encoded.
    pub fn set_body(&mut self, body: impl Into<Vec<u8>>) {
        match String::from_utf8(body.into()) {
            Ok(text) if self.event["isBase64Encoded"] != true => self.event["body"] = text.into(),
            Ok(text) => self.event["body"] = BASE64.encode(text).into(),
            Err(bytes) => {
                self.event["body"] = BASE64.encode(bytes.as_bytes()).into();
                self.event["isBase64Encoded"] = true.into();
            }
        }
    }

    /// Gives the event a new identity, so that it is not a duplicate: a new order id, or a new event id for ABOUT YOU.
    ///
    /// An event without such a field stays as it is.
    pub fn renew(&mut self) -> Result<(), Error> {
        self.renew_as(uuid::Uuid::new_v4())
    }

    /// Gives the event an identity that follows from `unique`.
    pub fn renew_as(&mut self, unique: uuid::Uuid) -> Result<(), Error> {
        const IDENTITY: [(&str, &str); 6] = [
            ("selldone", "/basket/id"),
            ("cartum", "/order_id"),
            ("deeple", "/orderNumber"),
            ("aboutyou", "/id"),
            ("snipcart", "/content/token"),
            ("snipcart", "/content/orderToken"),
        ];
        let Ok(mut body) = serde_json::from_slice::<Value>(&self.body()?) else {
            return Ok(());
        };
        for (_, pointer) in IDENTITY.iter().filter(|(provider, _)| *provider == self.provider) {
            match body.pointer_mut(pointer) {
                // Fits into a signed 32-bit integer.
                Some(number @ Value::Number(_)) => {
                    *number = (unique.as_fields().0 / 4).into();
                }
                Some(text @ Value::String(_)) => *text = unique.to_string().into(),
                _ => {}
            }
        }
        self.set_body(body.to_string());
        Ok(())
    }

    /// The HTTP request to a gateway at `url`.
    pub fn to_request(&self, url: &str) -> Result<Request<Bytes>, Error> {
        let path = self.event["rawPath"].as_str().unwrap_or_default();
        let query = self.event["rawQueryString"].as_str().filter(|query| !query.is_empty());
        let url = url.trim_end_matches('/');
        let uri = query.map_or_else(|| format!("{url}{path}"), |query| format!("{url}{path}?{query}"));
        let mut request = Request::builder().method(self.method()).uri(uri);
        for (name, value) in self.event["headers"].as_object().into_iter().flatten() {
            if !NOT_SENT.contains(&name.to_ascii_lowercase().as_str()) {
                request = request.header(name, value.as_str().unwrap_or_default());
            }
        }
        request
            .body(self.body()?.into())
            .map_err(|error| Error::Fixture(format!("{} is not a valid HTTP request: {error}", self.name)))
    }
}
