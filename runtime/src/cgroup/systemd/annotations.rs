//! `org.systemd.property.NAME`: a property in the text form of D-Bus variants, as
//! `org.systemd.property.TimeoutStopUSec: uint64 123456` or `...After: ['a.service']`. Pure.

use std::collections::HashMap;

use super::value::{Properties, Value};
use crate::error::{Error, Result};

const PREFIX: &str = "org.systemd.property.";

/// The properties that annotations ask for, in the order of their names.
pub(super) fn properties(annotations: Option<&HashMap<String, String>>) -> Result<Properties> {
    let mut found: Vec<(&str, &str, &str)> = annotations
        .into_iter()
        .flatten()
        .filter_map(|(key, text)| Some((key.as_str(), key.strip_prefix(PREFIX)?, text.as_str())))
        .collect();
    found.sort_unstable();
    let mut out = Properties::new();
    for (key, name, text) in found {
        let wrong = |why: &str| Error::config(format!("annotations[{key:?}]"), why);
        if name.len() < 3 || !name.chars().all(|c| c.is_ascii_alphabetic()) {
            return Err(wrong("is not the name of a property"));
        }
        let value = parse(text).ok_or_else(|| wrong("is no value in the text form of D-Bus"))?;
        match name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) {
            // D-Bus knows microseconds only.
            Some(stem) => {
                let value = microseconds(text).ok_or_else(|| wrong("is no number of seconds"))?;
                out.push((format!("{stem}USec"), Value::ULong(value)));
            }
            None => out.push((name.to_owned(), value)),
        }
    }
    Ok(out)
}

fn microseconds(text: &str) -> Option<u64> {
    let digits = text.rsplit(' ').next()?;
    let seconds: f64 = digits.parse().ok().filter(|seconds: &f64| *seconds >= 0.0)?;
    Some((seconds * 1e6) as u64)
}

fn parse(text: &str) -> Option<Value> {
    let text = text.trim();
    match text {
        "true" => return Some(Value::Flag(true)),
        "false" => return Some(Value::Flag(false)),
        _ => {}
    }
    if let Some(list) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return strings(list).map(Value::Texts);
    }
    if text.starts_with(['\'', '"']) {
        let (string, rest) = quoted(text)?;
        return rest.trim().is_empty().then_some(Value::Text(string));
    }
    let (kind, digits) = text.split_once(' ').unwrap_or(("int32", text));
    let digits = digits.trim();
    Some(match kind {
        "byte" => Value::Byte(digits.parse().ok()?),
        "int16" => Value::Short(digits.parse().ok()?),
        "uint16" => Value::UShort(digits.parse().ok()?),
        "int32" if digits.contains('.') => {
            return microseconds(digits).map(Value::ULong);
        }
        "int32" => Value::Int(digits.parse().ok()?),
        "uint32" => Value::UInt(digits.parse().ok()?),
        "int64" => Value::Long(digits.parse().ok()?),
        "uint64" => Value::ULong(digits.parse().ok()?),
        _ => return None,
    })
}

fn strings(mut list: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    while !list.trim().is_empty() {
        let (string, rest) = quoted(list.trim_start())?;
        out.push(string);
        let rest = rest.trim_start();
        list = match rest.strip_prefix(',') {
            Some(more) if !more.trim().is_empty() => more,
            None if rest.is_empty() => rest,
            _ => return None,
        };
    }
    Some(out)
}

/// A quoted string, and what comes after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.push(chars.next()?.1),
            c if c == quote => return Some((out, &text[at + 1..])),
            '\0' => return None,
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, text: &str) -> Option<(String, Value)> {
        let annotations = HashMap::from([(format!("{PREFIX}{name}"), text.to_owned())]);
        properties(Some(&annotations)).ok()?.pop()
    }

    #[test]
    fn text_becomes_a_property() {
        for (name, text, expected) in [
            ("TimeoutStopUSec", "uint64 123456", Some(("TimeoutStopUSec", Value::ULong(123_456)))),
            ("TimeoutStopSec", "2", Some(("TimeoutStopUSec", Value::ULong(2_000_000)))),
            ("TimeoutStopSec", "uint64 2", Some(("TimeoutStopUSec", Value::ULong(2_000_000)))),
            ("TimeoutStopSec", "1.5", Some(("TimeoutStopUSec", Value::ULong(1_500_000)))),
            ("TimeoutStopSec", "'x'", None),
            ("CollectMode", "'inactive'", Some(("CollectMode", Value::Text("inactive".into())))),
            (
                "After",
                "['a.service', \"b\"]",
                Some(("After", Value::Texts(vec!["a.service".into(), "b".into()]))),
            ),
            ("After", "[]", Some(("After", Value::Texts(vec![])))),
            ("After", "['a' 'b']", None),
            ("SendSIGHUP", "true", Some(("SendSIGHUP", Value::Flag(true)))),
            ("Some", "-5", Some(("Some", Value::Int(-5)))),
            ("Some", "byte 300", None),
            ("Some", "'open", None),
            ("ab", "true", None),
            ("a1c", "true", None),
        ] {
            let expected = expected.map(|(name, value)| (name.to_owned(), value));
            assert_eq!(one(name, text), expected, "{name} {text}");
        }
        assert!(
            properties(Some(&HashMap::from([("other".into(), "x".into())]))).unwrap().is_empty()
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_a_panic(text in ".{0,20}") {
            let _any = one("Name", &text);
            let _any = one("NameSec", &text);
        }
    }
}
