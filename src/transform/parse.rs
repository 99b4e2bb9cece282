//! From text to a syntax tree that holds only what expressions may hold: bounded in size and depth, every column and
//! function known. What is refused is refused with its position.

use std::ops::ControlFlow;

use arrow::datatypes::Schema;
use datafusion_sql::sqlparser::{
    ast::{
        BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
        FunctionArguments, Ident, Query, Spanned, UnaryOperator, Value, Visit, Visitor,
        visit_expressions_mut,
    },
    dialect::PostgreSqlDialect,
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::{Location, Token, TokenWithSpan, Tokenizer},
};

use super::{expression::Refusal, functions, names};

/// Enough for a `case` over a few dozen codes; planning time grows with it.
pub(super) const TEXT_BYTES_MAX: usize = 4096;
/// Both planning and evaluation recurse over the tree.
pub(super) const DEPTH_MAX: usize = 64;
/// The parser counts up to three steps for what a reader calls one level. At its limit it takes words for names and
/// complains about what follows, so that [`nested_too_deep`] has to come first.
const PARSER_DEPTH_MAX: usize = 4 * DEPTH_MAX;
/// Each may put a whole column into the result (`a || a || a ...`).
pub(super) const COLUMN_USES_MAX: usize = 128;

pub(super) fn parse(text: &str, input: &Schema) -> Result<Expr, Refusal> {
    if text.trim().is_empty() {
        return Err(Refusal::new("an expression can't be empty"));
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(Refusal::new(format!(
            "an expression may take {TEXT_BYTES_MAX} bytes; this takes {}",
            text.len()
        )));
    }
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, text)
        .tokenize_with_location()
        .map_err(|error| Refusal::new(error.message.clone()).at(position(text, error.location)))?;
    if let Some(place) = nested_too_deep(&tokens) {
        return Err(too_deep().at(position(text, place)));
    }
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(PARSER_DEPTH_MAX)
        .with_tokens_with_locations(tokens);
    let mut tree = parser
        .parse_expr()
        .map_err(|error| syntax_error(text, error))?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        return Err(trailing(&next.token).at(position(text, next.span.start)));
    }
    let mut check = Check {
        text,
        input,
        depth: 0,
        column_uses: 0,
    };
    if let ControlFlow::Break(refusal) = tree.visit(&mut check) {
        return Err(*refusal);
    }
    let _ = visit_expressions_mut(&mut tree, |expr| {
        call_substr(expr);
        ControlFlow::<()>::Continue(())
    });
    Ok(tree)
}

/// `substring(x from 2 for 3)`, and `substr`, which is parsed as the same, become calls of the function: the planner
/// would need a feature of datafusion-sql for its own way, which ends at the same function.
fn call_substr(expr: &mut Expr) {
    let Expr::Substring {
        expr: text,
        substring_from,
        substring_for,
        ..
    } = expr
    else {
        return;
    };
    let one = || Expr::value(Value::Number("1".to_owned(), false));
    let from = substring_from.take().map_or_else(one, |from| *from);
    let length = substring_for.take().map(|length| *length);
    let start = text.span();
    let text = std::mem::replace(text.as_mut(), one());
    let args = [Some(text), Some(from), length].into_iter().flatten();
    let name = Ident::with_span(start, "substr");
    *expr = Expr::Function(Function {
        name: vec![name].into(),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args
                .map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)))
                .collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    });
}

/// 1-based, in characters, of a line and a column, which sqlparser counts in characters too.
pub(super) fn position(text: &str, location: Location) -> u32 {
    let lines_before = location.line.saturating_sub(1) as usize;
    let before: usize = text
        .split_inclusive('\n')
        .take(lines_before)
        .map(|line| line.chars().count())
        .sum();
    // TEXT_BYTES_MAX bounds both.
    u32::try_from(before as u64 + location.column.max(1)).unwrap_or(u32::MAX)
}

/// Where parentheses, `case` or signs are nested more than [`DEPTH_MAX`] deep.
fn nested_too_deep(tokens: &[TokenWithSpan]) -> Option<Location> {
    let mut open = 0_usize;
    let mut prefixes = 0_usize;
    for token in tokens {
        let keyword = match &token.token {
            Token::Whitespace(_) => continue,
            Token::Word(word) if word.quote_style.is_none() => word.keyword,
            _ => Keyword::NoKeyword,
        };
        match (&token.token, keyword) {
            (Token::LParen | Token::LBracket, _) | (_, Keyword::CASE) => open += 1,
            (Token::RParen | Token::RBracket, _) | (_, Keyword::END) => {
                open = open.saturating_sub(1);
            }
            _ => {}
        }
        prefixes = match (&token.token, keyword) {
            (Token::Minus | Token::Plus, _) | (_, Keyword::NOT) => prefixes + 1,
            _ => 0,
        };
        if open + prefixes > DEPTH_MAX {
            return Some(token.span.start);
        }
    }
    None
}

fn syntax_error(text: &str, error: ParserError) -> Refusal {
    let message = match error {
        ParserError::RecursionLimitExceeded => return too_deep(),
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
    };
    // The parser appends the place to its text: ` at Line: 1, Column: 5`.
    let Some((said, place)) = message.rsplit_once(" at Line: ") else {
        let end = text.chars().count() as u32 + 1;
        return Refusal::new(format!("syntax error: {message}")).at(end);
    };
    let location = place
        .split_once(", Column: ")
        .and_then(|(line, column)| Some(Location::new(line.parse().ok()?, column.parse().ok()?)))
        .unwrap_or(Location::new(1, 1));
    Refusal::new(format!("syntax error: {said}")).at(position(text, location))
}

fn trailing(token: &Token) -> Refusal {
    Refusal::new(match token {
        Token::Comma => "one expression is expected here, not a list".to_owned(),
        Token::SemiColon => "one expression is expected here, without a semicolon".to_owned(),
        Token::Word(word) if word.value.eq_ignore_ascii_case("as") => {
            "an expression has no alias; its name is the column's `name`".to_owned()
        }
        other => format!("the expression should end before {other}; is an operator missing?"),
    })
}

fn too_deep() -> Refusal {
    Refusal::new(format!(
        "expressions may be nested {DEPTH_MAX} deep (each operator of a chain such as `a + b + c` counts); \
         use `in (...)` or `case` instead of long chains"
    ))
}

struct Check<'a> {
    text: &'a str,
    input: &'a Schema,
    depth: usize,
    column_uses: usize,
}

impl Visitor for Check<'_> {
    // Boxed: it is carried through every frame of a deep recursion.
    type Break = Box<Refusal>;

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<Self::Break> {
        ControlFlow::Break(Box::new(sub_query()))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        self.depth += 1;
        match self.check(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(mut refusal) => {
                refusal.position = refusal.position.or_else(|| self.start_of(expr));
                ControlFlow::Break(Box::new(refusal))
            }
        }
    }

    fn post_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<Self::Break> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

impl Check<'_> {
    fn check(&mut self, expr: &Expr) -> Result<(), Refusal> {
        if self.depth > DEPTH_MAX {
            return Err(too_deep());
        }
        match expr {
            Expr::Identifier(name) => self.column(name),
            Expr::CompoundIdentifier(parts) => Err(self.qualified(parts)),
            Expr::Function(function) => self.function(function),
            Expr::Value(value) => literal(&value.value),
            Expr::BinaryOp { op, .. } => binary(op),
            Expr::UnaryOp { op, .. } => unary(op),
            Expr::Like { any: true, .. } | Expr::ILike { any: true, .. } => {
                Err(Refusal::new("like any (...) is not available; use `or`"))
            }
            Expr::Cast {
                format: Some(_), ..
            } => Err(Refusal::new(
                "cast with a format is not available; use to_char or to_timestamp",
            )),
            Expr::Nested(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_)
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
            | Expr::InList { .. }
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::ILike { .. }
            | Expr::Case { .. }
            | Expr::Cast { .. }
            | Expr::Extract { .. }
            | Expr::Ceil { .. }
            | Expr::Floor { .. }
            | Expr::Position { .. }
            | Expr::Substring { .. }
            | Expr::Trim { .. }
            | Expr::Overlay { .. }
            | Expr::TypedString(_)
            | Expr::Interval(_) => Ok(()),
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => Err(sub_query()),
            Expr::AtTimeZone { .. } => Err(Refusal::new(
                "`at time zone` is not available; use at_zone(ts, 'Asia/Shanghai')",
            )),
            Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => {
                Err(Refusal::new("`*` stands for no value; name a column"))
            }
            Expr::Tuple(_) => Err(Refusal::new("one expression is expected here, not a list")),
            Expr::SimilarTo { .. } => Err(Refusal::new(
                "`similar to` is not available; use regexp_like(text, pattern)",
            )),
            _ => Err(Refusal::new(
                "this construct is not available in expressions",
            )),
        }
    }

    fn column(&mut self, name: &Ident) -> Result<(), Refusal> {
        self.column_uses += 1;
        if self.column_uses > COLUMN_USES_MAX {
            return Err(Refusal::new(format!(
                "an expression may name columns {COLUMN_USES_MAX} times"
            )));
        }
        let found = names::find(self.input, &name.value);
        found.map(drop).map_err(|message| {
            // `current_date` and the like are written without parentheses.
            let message = match functions::refused(&name.value) {
                Some(reason) => reason,
                None if name.quote_style.is_some() => {
                    format!("{message}; text is written in single quotes: 'text'")
                }
                None => message,
            };
            self.at(Refusal::new(message), name.span.start)
        })
    }

    fn qualified(&self, parts: &[Ident]) -> Refusal {
        let last = parts.last().map_or("", |part| part.value.as_str());
        let whole: Vec<&str> = parts.iter().map(|part| part.value.as_str()).collect();
        let hint = match names::find(self.input, &whole.join(".")) {
            Ok(_) => format!("write {}", names::quoted(&whole.join("."))),
            Err(_) => format!("write {last} alone"),
        };
        Refusal::new(format!(
            "columns have no table in front of them here; {hint}"
        ))
    }

    fn function(&self, function: &Function) -> Result<(), Refusal> {
        let name = function.name.to_string();
        let start = function.name.span().start;
        functions::check(&name).map_err(|message| self.at(Refusal::new(message), start))?;
        let plain = function.over.is_none()
            && function.filter.is_none()
            && function.within_group.is_empty()
            && function.null_treatment.is_none()
            && matches!(function.parameters, FunctionArguments::None);
        let refusal = match &function.args {
            _ if !plain => {
                "a function takes only its arguments here: no over, filter or within group"
            }
            FunctionArguments::Subquery(_) => return Err(sub_query()),
            FunctionArguments::None => "a function needs parentheses",
            FunctionArguments::List(list)
                if list.duplicate_treatment.is_some() || !list.clauses.is_empty() =>
            {
                "a function takes only its arguments here: no distinct, no order by"
            }
            FunctionArguments::List(list) => {
                let values_only = list
                    .args
                    .iter()
                    .all(|arg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(_))));
                match values_only {
                    true => return Ok(()),
                    false => "arguments are values here: no `*`, no names",
                }
            }
        };
        Err(self.at(Refusal::new(refusal), start))
    }

    fn at(&self, refusal: Refusal, location: Location) -> Refusal {
        match location.line {
            0 => refusal,
            _ => refusal.at(position(self.text, location)),
        }
    }

    fn start_of(&self, expr: &Expr) -> Option<u32> {
        start_of(self.text, expr)
    }
}

/// Where the expression begins, where the parser kept that.
pub(super) fn start_of(text: &str, expr: &Expr) -> Option<u32> {
    let start = expr.span().start;
    (start.line > 0).then(|| position(text, start))
}

fn sub_query() -> Refusal {
    Refusal::new("sub-queries are not available: an expression sees one row at a time")
}

fn literal(value: &Value) -> Result<(), Refusal> {
    match value {
        Value::Number(..)
        | Value::SingleQuotedString(_)
        | Value::EscapedStringLiteral(_)
        | Value::DollarQuotedString(_)
        | Value::Boolean(_)
        | Value::Null => Ok(()),
        Value::Placeholder(_) => Err(Refusal::new(
            "parameters are not available in expressions; write the value itself",
        )),
        _ => Err(Refusal::new(
            "this form of a literal is not available; write 'text'",
        )),
    }
}

fn binary(op: &BinaryOperator) -> Result<(), Refusal> {
    use BinaryOperator as Op;
    match op {
        Op::Plus | Op::Minus | Op::Multiply | Op::Divide | Op::Modulo | Op::StringConcat => Ok(()),
        Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq | Op::And | Op::Or => Ok(()),
        Op::PGRegexMatch | Op::PGRegexIMatch | Op::PGRegexNotMatch | Op::PGRegexNotIMatch => Err(
            Refusal::new("regular expressions are written regexp_like(text, pattern)"),
        ),
        other => Err(Refusal::new(format!(
            "the operator {other} is not available"
        ))),
    }
}

fn unary(op: &UnaryOperator) -> Result<(), Refusal> {
    match op {
        UnaryOperator::Plus | UnaryOperator::Minus | UnaryOperator::Not => Ok(()),
        other => Err(Refusal::new(format!(
            "the operator {other} is not available"
        ))),
    }
}
