//! The query of a request to an order API.

use std::collections::HashMap;

use bytes::Bytes;
use http::Request;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// The parameters of a query.
pub(super) struct Query(HashMap<String, String>);

impl Query {
    pub(super) fn of(request: &Request<Bytes>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// A number.
    pub(super) fn number(&self, name: &str, otherwise: usize) -> usize {
        let number = self.0.get(name).and_then(|number| number.parse().ok());
        number.unwrap_or(otherwise)
    }

    /// A time with its zone; an error if the parameter is something else.
    pub(super) fn moment(&self, name: &str) -> Result<Option<Timestamp>, jiff::Error> {
        self.0.get(name).map(|text| text.parse()).transpose()
    }

    /// A time, or the beginning of a day.
    pub(super) fn time(&self, name: &str) -> Option<Timestamp> {
        let text = self.0.get(name)?;
        let day = || Some(text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp());
        text.parse().ok().or_else(day)
    }
}
