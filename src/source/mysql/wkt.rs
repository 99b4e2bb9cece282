//! Geometries: from MySQL's stored form, four bytes of a reference system and well-known binary, to well-known text,
//! spelled as the server's `ST_AsText` does. A SELECT of a client can't be rewritten to call that function.

use std::fmt::Write as _;

/// Collections within collections; the server itself stops far earlier.
const DEPTH_MAX: u32 = 32;

/// Of numbers that are written without one.
const PLAIN_EXPONENT_MIN: i32 = -15;
const PLAIN_EXPONENT_MAX: i32 = 14;

/// `None` where the bytes are no geometry.
pub fn of_geometry(bytes: &[u8]) -> Option<String> {
    let mut reader = Reader {
        bytes: bytes.get(4..)?,
        text: String::new(),
    };
    reader.geometry(DEPTH_MAX)?;
    reader.bytes.is_empty().then_some(reader.text)
}

struct Reader<'a> {
    bytes: &'a [u8],
    text: String,
}

impl Reader<'_> {
    fn geometry(&mut self, depth: u32) -> Option<()> {
        let kind = self.header()?;
        let name = match kind {
            1 => "POINT",
            2 => "LINESTRING",
            3 => "POLYGON",
            4 => "MULTIPOINT",
            5 => "MULTILINESTRING",
            6 => "MULTIPOLYGON",
            7 => "GEOMETRYCOLLECTION",
            _ => return None,
        };
        self.text.push_str(name);
        if kind == 7 {
            let depth = depth.checked_sub(1)?;
            return self.list(|reader| reader.geometry(depth));
        }
        self.body(kind)
    }

    /// What stands behind the name.
    fn body(&mut self, kind: u32) -> Option<()> {
        match kind {
            1 => {
                self.text.push('(');
                self.point()?;
                self.text.push(')');
                Some(())
            }
            2 => self.list(Self::point),
            3 => self.list(|reader| reader.list(Self::point)),
            // Each part has a header of its own; the text of a multipoint has no brackets around its points.
            4 => self.list(|reader| {
                reader.header()?;
                reader.point()
            }),
            _ => self.list(|reader| {
                let part = reader.header()?;
                (part == kind - 3).then_some(())?;
                reader.body(part)
            }),
        }
    }

    fn header(&mut self) -> Option<u32> {
        // MySQL stores little-endian on every machine.
        (self.take::<1>()? == [1]).then_some(())?;
        self.number()
    }

    fn list(&mut self, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        let count = self.number()?;
        if count == 0 {
            self.text.push_str(" EMPTY");
            return Some(());
        }
        self.text.push('(');
        for index in 0..count {
            if index > 0 {
                self.text.push(',');
            }
            item(self)?;
        }
        self.text.push(')');
        Some(())
    }

    fn point(&mut self) -> Option<()> {
        let x = f64::from_le_bytes(self.take()?);
        let y = f64::from_le_bytes(self.take()?);
        self.coordinate(x)?;
        self.text.push(' ');
        self.coordinate(y)
    }

    /// The shortest text that reads back equal, with an exponent where the server writes one.
    fn coordinate(&mut self, value: f64) -> Option<()> {
        let scientific = format!("{value:e}");
        let exponent: i32 = scientific.split_once('e')?.1.parse().ok()?;
        match (PLAIN_EXPONENT_MIN..=PLAIN_EXPONENT_MAX).contains(&exponent) {
            true => write!(self.text, "{value}").ok(),
            false => {
                self.text.push_str(&scientific);
                Some(())
            }
        }
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take()?))
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*head)
    }
}
