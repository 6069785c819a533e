//! Finding an e-mail address in a text.

use std::borrow::Cow;

/// An e-mail address, compared without regard to case.
pub(super) struct EmailAddress(String);

impl EmailAddress {
    /// Returns `None` if there is no text on one side of the `@`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (local, domain) = text.trim().rsplit_once('@')?;
        let is_valid = !local.is_empty() && !domain.is_empty() && !text.trim().contains(char::is_whitespace);
        is_valid.then(|| Self(text.trim().to_lowercase()))
    }

    /// Whether a text names the address, and not only a longer one, as plain text or as JSON or a form writes it.
    pub(super) fn is_in(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        // A letter after a backslash may belong to an escape and not to the address. The decoded text decides.
        self.is_in_lower_case(&text, "._%+-\\")
            || decoded(&text).is_some_and(|text| self.is_in_lower_case(&text.to_lowercase(), "._%+-"))
    }

    /// Whether a text in lower case names the address. A letter, a digit or a character of `continues` before it makes
    /// it the end of a longer one.
    fn is_in_lower_case(&self, text: &str, continues: &str) -> bool {
        text.match_indices(&self.0).any(|(at, found)| {
            let before = text[..at].chars().next_back();
            let mut after = text[at + found.len()..].chars();
            let (next, next_but_one) = (after.next(), after.next());
            let goes_on_before = before.is_some_and(|char| char.is_alphanumeric() || continues.contains(char));
            let goes_on_after = next.is_some_and(|char| char.is_alphanumeric() || char == '-')
                || (next == Some('.') && next_but_one.is_some_and(char::is_alphanumeric));
            !goes_on_before && !goes_on_after
        })
    }
}

/// Decodes the escapes of JSON and of URLs; `None` if the text has none. An escaped control character becomes a space,
/// and half a surrogate pair the replacement character.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['\\', '%']) {
        return None;
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '%']) {
        decoded.push_str(&rest[..at]);
        rest = &rest[at..];
        let (prefix, digits) = if rest.starts_with("\\u") {
            (2, 4)
        } else if rest.starts_with('%') {
            (1, 2)
        } else {
            (1, 0)
        };
        let code = rest.get(prefix..prefix + digits).filter(|digits| !digits.is_empty());
        let character = code
            .and_then(|code| u32::from_str_radix(code, 16).ok())
            .map(|code| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        let short = rest.strip_prefix('\\').and_then(|rest| rest.chars().next());
        let short = short.and_then(|escape| match escape {
            'b' | 'f' | 'n' | 'r' | 't' => Some(' '),
            '\\' | '"' | '/' => Some(escape),
            _ => None,
        });
        if let Some(character) = short {
            decoded.push(character);
            rest = &rest[2..];
        } else if let Some(character) = character {
            decoded.push(character);
            rest = &rest[prefix + digits..];
        } else {
            decoded.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    decoded.push_str(rest);
    Some(decoded.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_every_notation() {
        let address = EmailAddress::parse(" J.Doe+shop@Example.com ").expect("an address");
        for text in [
            r#"{"email":"j.doe+shop@example.com"}"#,
            "j.doe+shop@EXAMPLE.COM",
            "Write to <J.Doe+Shop@example.com>.",
            r#"{"email":"J.Doe\u002bshop\u0040example.com"}"#,
            "email=j.doe%2Bshop%40example.com&b=c",
            "ü%zz\\ j.doe+shop@example.com",
            r#"{"note":"Contact:\nj.doe+shop@example.com"}"#,
            r#"{"note":"Contact:\tJ.Doe+shop\u0040example.com\r\nThanks"}"#,
            r#"{"note":"\b\fj.doe+shop@example.com"}"#,
            r#"{"note":"\ud83d\ude00j.doe+shop@example.com"}"#,
            r#"{"note":"\\j.doe+shop@example.com"}"#,
            r#"{"note":"https:\/\/j.doe+shop@example.com"}"#,
        ] {
            assert!(address.is_in(text), "{text}");
        }
    }

    #[test]
    fn a_longer_address_is_another() {
        let address = EmailAddress::parse("doe@example.com").expect("an address");
        for text in [
            "j.doe@example.com",
            "doe@example.com.au",
            "doe@example.community",
            "john+doe@example.com",
            "doe@example.co",
            r#"{"note":"\\ndoe@example.com"}"#,
            r#"{"note":"j\u002edoe@example.com"}"#,
            "",
        ] {
            assert!(!address.is_in(text), "{text}");
        }
        // The letter of an escape does not belong to the address.
        let address = EmailAddress::parse("nadine@example.com").expect("an address");
        assert!(!address.is_in(r#"{"note":"Contact:\nadine@example.com"}"#));
        assert!(address.is_in(r#"{"note":"Contact:\nnadine@example.com"}"#));
    }

    #[test]
    fn a_text_that_is_not_an_address_is_rejected() {
        for text in ["", "@", "a@", "@b", "a b@c", "example.com"] {
            assert!(EmailAddress::parse(text).is_none(), "{text}");
        }
    }
}
