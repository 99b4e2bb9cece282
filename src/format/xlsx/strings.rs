//! Texts as cells can hold them: 32,767 UTF-16 units, control characters as `_xHHHH_`.
//!
//! rust_xlsxwriter writes control characters as `_xHHHH_` and guards a literal `_xHHHH_` with `_x005F_`, as OOXML
//! (ECMA-376 part 1, 22.9.2.19) demands, except where both meet: in `_x0041` followed by a line tabulation, the
//! underscore that opens the escape of the latter completes the former. [`Fitted::Escaped`] is for those.

/// UTF-16 units of a cell.
pub(super) const UNITS_MAX: usize = 32_767;
/// UTF-16 units of `_xHHHH_`.
const ESCAPE_UNITS: usize = 7;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fitted<'a> {
    /// The library escapes it.
    Plain(&'a str),
    /// Escaped by us; to be written in a way that the library doesn't escape again.
    Escaped(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fit<'a> {
    pub(super) text: Fitted<'a>,
    pub(super) cut: bool,
    pub(super) controls: bool,
}

pub(super) fn fit(text: &str) -> Fit<'_> {
    let kept = cut(text, UNITS_MAX);
    let controls = has_controls(kept);
    if controls && escapes_collide(kept) {
        let kept = if kept.len() * ESCAPE_UNITS > UNITS_MAX {
            // the library measures what it is given, so leave room for every character to be escaped
            cut(kept, UNITS_MAX / ESCAPE_UNITS)
        } else {
            kept
        };
        return Fit {
            cut: kept.len() < text.len(),
            text: Fitted::Escaped(escape(kept)),
            controls,
        };
    }
    Fit {
        cut: kept.len() < text.len(),
        text: Fitted::Plain(kept),
        controls,
    }
}

/// The longest start of `text` that takes at most `units_max` UTF-16 units; characters stay whole.
pub(super) fn cut(text: &str, units_max: usize) -> &str {
    // no character takes more units than bytes
    if text.len() <= units_max {
        return text;
    }
    let mut units = 0;
    for (index, character) in text.char_indices() {
        units += character.len_utf16();
        if units > units_max {
            return &text[..index];
        }
    }
    text
}

/// At most the bytes that `text` takes in XML.
pub(super) fn xml_bytes_max(text: &str) -> u64 {
    let special = text
        .bytes()
        .filter(|byte| matches!(byte, b'&' | b'<' | b'>' | b'_' | 0..0x20 | 0xEF))
        .count();
    (text.len() + special * ESCAPE_UNITS) as u64
}

fn has_controls(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().any(|byte| is_control((*byte).into()))
        // the first byte of both non-characters; also of much that is common, hence the second look
        || bytes.contains(&0xEF) && text.chars().any(is_control)
}

/// What XML 1.0 can't hold, and the carriage return, which every XML parser turns into a line feed.
fn is_control(character: char) -> bool {
    matches!(character, '\0'..='\x08' | '\x0B'..='\x1F' | '\u{FFFE}' | '\u{FFFF}')
}

fn escapes_collide(text: &str) -> bool {
    text.match_indices("_x")
        .any(|(index, _)| after_escape(&text[index..]).is_some_and(is_control))
}

/// The character behind `_xHHHH`, if that is what `text` starts with.
fn after_escape(text: &str) -> Option<char> {
    let bytes = text.as_bytes();
    let opened = bytes.starts_with(b"_x")
        && bytes.len() > 6
        && bytes[2..6].iter().all(u8::is_ascii_hexdigit);
    if opened {
        text[6..].chars().next()
    } else {
        None
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + ESCAPE_UNITS);
    for (index, character) in text.char_indices() {
        if after_escape(&text[index..]).is_some_and(|next| next == '_' || is_control(next)) {
            escaped.push_str("_x005F_");
        } else if is_control(character) {
            escaped.push_str(&format!("_x{:04X}_", u32::from(character)));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_by_utf16_units_and_never_inside_a_character() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc");
        assert_eq!(cut("王李张刘", 4), "王李张刘");
        assert_eq!(cut("😀😀😀", 4), "😀😀");
        assert_eq!(cut("😀😀😀", 5), "😀😀");
        let long = "a".repeat(UNITS_MAX - 1) + "😀";
        let fitted = fit(&long);
        assert!(fitted.cut);
        assert_eq!(fitted.text, Fitted::Plain(&long[..UNITS_MAX - 1]));
        assert!(!fit(&"é".repeat(UNITS_MAX)).cut);
    }

    #[test]
    fn sees_what_xml_cannot_hold() {
        for text in ["a\0", "\r\n", "\u{1F}", "x\u{FFFE}", "\u{FFFF}"] {
            assert!(fit(text).controls, "{text:?}");
        }
        for text in ["", "a\tb\nc", "\u{7F}", "（王）", "\u{FFFD}"] {
            assert!(!fit(text).controls, "{text:?}");
        }
    }

    #[test]
    fn escapes_itself_only_where_the_library_would_change_the_text() {
        assert_eq!(fit("_x0041_\r").text, Fitted::Plain("_x0041_\r"));
        assert_eq!(
            fit("_x0041\u{B}").text,
            Fitted::Escaped("_x005F_x0041_x000B_".to_owned())
        );
        assert_eq!(
            fit("_xZZZZ\u{B}_x0041\r<").text,
            Fitted::Escaped("_xZZZZ_x000B__x005F_x0041_x000D_<".to_owned())
        );
    }

    #[test]
    fn an_escaped_text_fits_too() {
        let text = "_x0041\u{B}".repeat(4_000);
        let fitted = fit(&text);
        assert!(fitted.cut);
        let Fitted::Escaped(escaped) = fitted.text else {
            panic!("not escaped")
        };
        assert!(escaped.len() <= UNITS_MAX);
    }
}
