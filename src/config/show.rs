//! Prints what is in force: TOML that can be loaded again, with the origin of what is no default.

use toml::Value;

/// One key in force; secrets are masked already.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub path: Vec<String>,
    pub value: Value,
    /// `None`: the default.
    pub origin: Option<String>,
}

pub(super) fn toml(lines: &[Line]) -> String {
    let mut out = String::new();
    let mut section: &[String] = &[];
    for line in lines {
        let (name, above) = line.path.split_last().expect("no key is at the top");
        if above != section {
            section = above;
            if !out.is_empty() {
                out.push('\n');
            }
            let parts: Vec<String> = above.iter().map(|part| key(part)).collect();
            out.push_str(&format!("[{}]\n", parts.join(".")));
        }
        let value = inline(&line.value);
        match &line.origin {
            Some(origin) => out.push_str(&format!(
                "{} = {value}  # {}\n",
                key(name),
                origin.escape_default()
            )),
            None => out.push_str(&format!("{} = {value}\n", key(name))),
        }
    }
    out
}

fn key(name: &str) -> String {
    let is_bare = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if is_bare {
        name.to_owned()
    } else {
        quoted(name)
    }
}

/// On one line, whatever it holds.
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) if table.is_empty() => "{}".to_owned(),
        Value::Table(table) => {
            let items: Vec<String> = table
                .iter()
                .map(|(name, item)| format!("{} = {}", key(name), inline(item)))
                .collect();
            format!("{{ {} }}", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => {
                out.push_str(&format!("\\u{:04X}", u32::from(control)))
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
    out
}
