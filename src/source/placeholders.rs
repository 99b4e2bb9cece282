//! Finds `:name` placeholders in SQL text and rewrites them to what a database binds.
//!
//! Owns a lexer for the three dialects, just deep enough to know what is code and what is a string, a quoted
//! identifier or a comment. It refuses to know SQL's grammar: the database does the parsing. What it must get right is
//! that nothing inside quotes is taken for a placeholder, and that one text holds one statement.
//!
//! A `:` followed by a letter or `_` is a placeholder wherever code may stand; `::` and `:=` are not. A PostgreSQL
//! slice with a column as its upper bound needs a space: `a[1: n]`.

use super::{Error, Param, ParamValue};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// `$1`; nested comments, dollar quotes, `E''` strings. Assumes `standard_conforming_strings = on`.
    Postgres,
    /// `?`; backslash escapes, backticks, `#` comments. Assumes that `NO_BACKSLASH_ESCAPES` is off.
    Mysql,
    /// `?`; brackets and backticks quote identifiers.
    Sqlite,
}

/// SQL as it goes to the database, without a closing `;`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rewritten {
    pub sql: String,
    /// What is bound, in order. PostgreSQL: each name once, `$1` is the first. Others: one entry for each `?`.
    pub names: Vec<String>,
    edits: Vec<Edit>,
}

/// One replaced placeholder. All numbers count characters from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Edit {
    at: usize,
    len: usize,
    client_at: usize,
    client_len: usize,
}

impl Rewritten {
    /// Where a 1-based character position of `sql` is in the client's text, 1-based as well.
    pub fn client_position(&self, position: u32) -> u32 {
        let at = (position as usize).saturating_sub(1);
        let client = match self.edits.iter().rev().find(|edit| edit.at <= at) {
            None => at,
            Some(edit) if at < edit.at + edit.len => edit.client_at,
            Some(edit) => edit.client_at + edit.client_len + (at - edit.at - edit.len),
        };
        u32::try_from(client + 1).unwrap_or(u32::MAX)
    }

    /// Every name once, in order of first use.
    pub fn distinct_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in &self.names {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    /// For databases that bind no arrays: the `?` of a list becomes one for each of its values, so that
    /// `id in (:ids)` means what it says. `names` stays as it is: whoever binds goes through a list's values.
    pub fn expand_lists(self, params: &[Param]) -> Self {
        self.expand(params, |_| "?".to_owned())
    }

    /// As [`Self::expand_lists`], with more than a `?` where a value needs it, such as a cast around it.
    pub fn expand(mut self, params: &[Param], written: impl Fn(&ParamValue) -> String) -> Self {
        let texts: Vec<_> = self
            .names
            .iter()
            .map(|name| params.iter().find(|param| param.name == *name))
            .map(|param| match param.map(|param| &param.value) {
                None => "?".to_owned(),
                Some(ParamValue::List(_, values)) => {
                    list(values.iter().map(&written).collect::<Vec<_>>())
                }
                Some(value) => match value.list_len() {
                    Some(count) => list(vec!["?".to_owned(); count]),
                    None => written(value),
                },
            })
            .collect();
        if texts.iter().all(|text| text == "?") {
            return self;
        }
        let chars: Vec<char> = self.sql.chars().collect();
        let (mut out, mut copied, mut grown) = (String::new(), 0, 0);
        for (edit, text) in self.edits.iter_mut().zip(texts) {
            out.extend(&chars[copied..edit.at]);
            out.push_str(&text);
            copied = edit.at + edit.len;
            edit.at += grown;
            grown += text.len() - edit.len;
            edit.len = text.len();
        }
        out.extend(&chars[copied..]);
        self.sql = out;
        self
    }
}

fn list(values: Vec<String>) -> String {
    match values.is_empty() {
        true => EMPTY_LIST.to_owned(),
        false => values.join(", "),
    }
}

/// Nothing is in it, and everything is not in it; `in ()` is no SQL for MySQL.
const EMPTY_LIST: &str = "select null from (select 1) as none where 1 = 0";

/// # Errors
/// [`Error::Rejected`] for an empty text, a second statement, a NUL character, and the database's own parameter
/// syntax (`$1`, `?`), which would be mixed up with the rewritten ones.
pub fn rewrite(sql: &str, dialect: Dialect) -> Result<Rewritten, Error> {
    rewrite_with_casts(sql, dialect, &[])
}

/// As [`rewrite`]; a parameter whose place in `casts` holds a type is written as `($1::text::TYPE)`. PostgreSQL only.
pub fn rewrite_with_casts(
    sql: &str,
    dialect: Dialect,
    casts: &[Option<String>],
) -> Result<Rewritten, Error> {
    let chars: Vec<char> = sql.chars().collect();
    if let Some(at) = chars.iter().position(|c| *c == '\0') {
        return Err(rejected("the SQL text holds a NUL character", at));
    }
    let mut rewriter = Rewriter::new(&chars, dialect, casts);
    rewriter.run()?;
    Ok(Rewritten {
        sql: rewriter.out,
        names: rewriter.names,
        edits: rewriter.edits,
    })
}

/// The first word of the SQL text in lower case, comments and opening brackets left out.
pub fn first_word(sql: &str, dialect: Dialect) -> String {
    let chars: Vec<char> = sql.chars().collect();
    let mut rewriter = Rewriter::new(&chars, dialect, &[]);
    while let Some(c) = rewriter.peek(0) {
        if c == '(' {
            rewriter.at += 1;
        } else if !rewriter.skip_blank() {
            break;
        }
    }
    let rest = chars[rewriter.at.min(chars.len())..].iter();
    rest.take_while(|c| c.is_ascii_alphabetic())
        .map(char::to_ascii_lowercase)
        .collect()
}

struct Rewriter<'a> {
    dialect: Dialect,
    casts: &'a [Option<String>],
    chars: &'a [char],
    at: usize,
    out: String,
    /// Characters in `out`.
    out_len: usize,
    names: Vec<String>,
    edits: Vec<Edit>,
}

impl<'a> Rewriter<'a> {
    fn new(chars: &'a [char], dialect: Dialect, casts: &'a [Option<String>]) -> Self {
        Self {
            dialect,
            casts,
            chars,
            at: 0,
            out: String::with_capacity(chars.len() + 8),
            out_len: 0,
            names: Vec::new(),
            edits: Vec::new(),
        }
    }

    fn run(&mut self) -> Result<(), Error> {
        let mut has_code = false;
        while let Some(c) = self.peek(0) {
            if c == ';' {
                return self.end_of_statement(has_code);
            }
            let start = self.at;
            if self.skip_blank() {
                self.copy(start, self.at);
            } else {
                has_code = true;
                if let Token::Other = self.code(c)? {
                    self.copy(start, self.at);
                }
            }
        }
        if has_code {
            Ok(())
        } else {
            Err(rejected("the SQL text is empty", 0))
        }
    }

    /// After the first `;` only blanks and further `;` may follow.
    fn end_of_statement(&mut self, has_code: bool) -> Result<(), Error> {
        if !has_code {
            return Err(rejected("the SQL text begins with `;`", self.at));
        }
        while let Some(c) = self.peek(0) {
            if c == ';' {
                self.at += 1;
            } else if !self.skip_blank() {
                return Err(rejected(
                    "the SQL text holds more than one statement",
                    self.at,
                ));
            }
        }
        Ok(())
    }

    /// Passes one token of code.
    fn code(&mut self, c: char) -> Result<Token, Error> {
        match (c, self.dialect) {
            ('\'', Dialect::Mysql) | ('"', Dialect::Mysql) => self.quoted(c, Escape::Backslash),
            ('\'' | '"', _) => self.quoted(c, Escape::Doubled),
            ('`', Dialect::Mysql | Dialect::Sqlite) => self.quoted(c, Escape::Doubled),
            ('[', Dialect::Sqlite) => self.bracketed(),
            ('$', Dialect::Postgres) => self.dollar()?,
            ('?', Dialect::Mysql | Dialect::Sqlite) | ('@' | '$', Dialect::Sqlite) => {
                return Err(rejected("parameters are written as `:name`", self.at));
            }
            (':', _) => return Ok(self.colon()),
            (c, _) if is_name_start(c) => self.word(),
            _ => self.at += 1,
        }
        Ok(Token::Other)
    }

    fn colon(&mut self) -> Token {
        match self.peek(1) {
            Some(':' | '=') => self.at += 2,
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let start = self.at;
                let len = self.chars[start + 1..]
                    .iter()
                    .take_while(|c| c.is_ascii_alphanumeric() || **c == '_')
                    .count();
                let name: String = self.chars[start + 1..start + 1 + len].iter().collect();
                self.placeholder(start, len + 1, name);
                return Token::Placeholder;
            }
            _ => self.at += 1,
        }
        Token::Other
    }

    fn placeholder(&mut self, client_at: usize, client_len: usize, name: String) {
        let text = match self.dialect {
            Dialect::Postgres => {
                let index = self.names.iter().position(|n| *n == name);
                let index = index.unwrap_or_else(|| {
                    self.names.push(name);
                    self.names.len() - 1
                });
                match self.casts.get(index).and_then(Option::as_ref) {
                    Some(cast) => format!("(${}::text::{cast})", index + 1),
                    None => format!("${}", index + 1),
                }
            }
            Dialect::Mysql | Dialect::Sqlite => {
                self.names.push(name);
                "?".to_owned()
            }
        };
        // Without a blank, `select:a` would become the identifier `select$1`.
        let before = client_at.checked_sub(1).map(|at| self.chars[at]);
        if before.is_some_and(is_name_part) {
            self.out.push(' ');
            self.out_len += 1;
        }
        self.edits.push(Edit {
            at: self.out_len,
            len: text.len(),
            client_at,
            client_len,
        });
        self.out.push_str(&text);
        self.out_len += text.len();
        self.at = client_at + client_len;
    }

    fn word(&mut self) {
        let start = self.at;
        while self.peek(0).is_some_and(is_name_part) {
            self.at += 1;
        }
        let is_escape_prefix = self.dialect == Dialect::Postgres
            && self.at == start + 1
            && matches!(self.chars[start], 'e' | 'E');
        if is_escape_prefix && self.peek(0) == Some('\'') {
            self.quoted('\'', Escape::Backslash);
            // The standard glues strings that only a line break parts; the later ones are escape strings, too.
            while let Some(next) = self.continued_string() {
                self.at = next;
                self.quoted('\'', Escape::Backslash);
            }
        }
    }

    /// Where a string that continues the one before begins.
    fn continued_string(&self) -> Option<usize> {
        let mut at = self.at;
        let mut has_line_break = false;
        loop {
            match self.chars.get(at)? {
                '\n' | '\r' => has_line_break = true,
                c if c.is_ascii_whitespace() || *c == '\x0b' => {}
                '-' if self.chars.get(at + 1) == Some(&'-') => {
                    while !matches!(self.chars.get(at + 1), None | Some('\n' | '\r')) {
                        at += 1;
                    }
                }
                '\'' if has_line_break => return Some(at),
                _ => return None,
            }
            at += 1;
        }
    }

    fn dollar(&mut self) -> Result<(), Error> {
        let rest = &self.chars[self.at + 1..];
        if rest.first().is_some_and(char::is_ascii_digit) {
            return Err(rejected("parameters are written as `:name`", self.at));
        }
        let tag_len = match rest.first() {
            Some(c) if is_name_start(*c) => rest
                .iter()
                .take_while(|c| is_name_part(**c) && **c != '$')
                .count(),
            _ => 0,
        };
        if rest.get(tag_len) != Some(&'$') {
            self.at += 1;
            return Ok(());
        }
        let tag = &self.chars[self.at..self.at + tag_len + 2];
        let body = self.at + tag.len();
        let end = self.chars[body..]
            .windows(tag.len())
            .position(|w| w == tag)
            .map_or(self.chars.len(), |at| body + at + tag.len());
        self.at = end;
        Ok(())
    }

    fn quoted(&mut self, quote: char, escape: Escape) {
        self.at += 1;
        while let Some(c) = self.peek(0) {
            self.at += 1;
            if c == '\\' && escape == Escape::Backslash {
                self.at = (self.at + 1).min(self.chars.len());
            } else if c == quote {
                if self.peek(0) != Some(quote) {
                    return;
                }
                self.at += 1;
            }
        }
    }

    fn bracketed(&mut self) {
        while let Some(c) = self.peek(0) {
            self.at += 1;
            if c == ']' {
                return;
            }
        }
    }

    /// Passes one blank or one comment. False, and nothing passed, when code stands here.
    fn skip_blank(&mut self) -> bool {
        match (self.peek(0), self.peek(1)) {
            (Some(c), _) if c.is_whitespace() => self.at += 1,
            (Some('-'), Some('-')) if self.dashes_open_comment() => self.line_comment(),
            (Some('#'), _) if self.dialect == Dialect::Mysql => self.line_comment(),
            (Some('/'), Some('*')) => self.block_comment(),
            _ => return false,
        }
        true
    }

    fn dashes_open_comment(&self) -> bool {
        self.dialect != Dialect::Mysql
            || self
                .peek(2)
                .is_none_or(|c| c.is_whitespace() || c.is_control())
    }

    fn line_comment(&mut self) {
        // PostgreSQL ends a comment at a carriage return, too.
        let ends = |c: char| c == '\n' || (c == '\r' && self.dialect == Dialect::Postgres);
        let len = self.chars[self.at..].iter().take_while(|c| !ends(**c));
        self.at += len.count();
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('/', Some('*')) if depth == 0 || self.dialect == Dialect::Postgres => {
                    depth += 1;
                    self.at += 2;
                }
                ('*', Some('/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn copy(&mut self, from: usize, to: usize) {
        self.out.extend(&self.chars[from..to]);
        self.out_len += to - from;
    }
}

enum Token {
    /// Already written.
    Placeholder,
    /// To be copied as it is.
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    Doubled,
    /// Doubled or behind a backslash.
    Backslash,
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_name_part(c: char) -> bool {
    is_name_start(c) || c.is_ascii_digit() || c == '$'
}

/// `at` counts characters from 0.
fn rejected(message: &str, at: usize) -> Error {
    Error::Rejected {
        sqlstate: None,
        message: message.to_owned(),
        position: u32::try_from(at + 1).ok(),
    }
}

#[cfg(test)]
mod tests;
