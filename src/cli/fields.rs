//! `name=value` on the command line.

/// `k=v` as a pair of texts.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as name=value".to_owned()),
    }
}

/// `k=text`, which every parameter type takes, or `k:=json` for null, booleans, numbers and lists.
pub fn param(text: &str) -> Result<(String, serde_json::Value), String> {
    let (key, value) = pair(text)?;
    match key.strip_suffix(':') {
        Some("") => Err("write it as name=text or name:=json".to_owned()),
        Some(key) => serde_json::from_str(&value)
            .map(|json| (key.to_owned(), json))
            .map_err(|error| format!("{value:?} is no JSON: {error}")),
        None => Ok((key, value.into())),
    }
}
