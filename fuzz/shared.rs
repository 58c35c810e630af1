//! What the targets of both crates need; included by their modules `fuzz`.

/// A target and its name, which is also that of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// Reads JSON, writes it, and reads that: nothing changes any more.
pub fn json_is_stable<T: serde::Serialize + serde::de::DeserializeOwned>(data: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(data).ok()?;
    let text = serde_json::to_vec(&value).unwrap();
    let again: T = serde_json::from_slice(&text).unwrap();
    // As trees, since maps have no order.
    assert_eq!(serde_json::to_value(&value).unwrap(), serde_json::to_value(&again).unwrap());
    Some(value)
}
