//! From text to [`Expression`], by recursive descent with a bound on everything that costs: text, depth,
//! comparisons, regular expressions. The first thing that is wrong is the error.

use serde_json::{Map, Value};

use super::FilterError;
use super::expression::{Comparison, Expression, Test};
use super::lexer::{Lexeme, Lexer, Operator, Token, quote};
use super::operand::Literal;
use super::path::Path;
use super::pattern::Pattern;

/// The longest text of a filter: a list of 75 ids as `subject = "…" OR …` fits. It bounds what a router holds
/// of a filter, regular expressions aside: some 400 bytes for the usual three comparisons, 12 KiB for the most
/// there may be, 400 KiB for an array filled with small objects.
pub const MAX_SOURCE_BYTES: usize = 4096;

/// Parentheses, arrays and objects within each other. People write three or four; parsing, evaluating and
/// dropping recurse this deep, which is a few KiB of stack.
const MAX_DEPTH: usize = 32;

/// Each costs a lookup per event, and a router asks many webhooks about every event.
const MAX_COMPARISONS: usize = 100;

/// The only part of a filter that can take milliseconds; `a|b` joins what could be several.
const MAX_REGEXES: usize = 4;

pub(super) fn parse(source: &str) -> Result<Expression, FilterError> {
    if source.len() > MAX_SOURCE_BYTES {
        let message = format!("a filter may have {MAX_SOURCE_BYTES} bytes, this one has {}", source.len());
        return Err(FilterError::at(source, source.floor_char_boundary(MAX_SOURCE_BYTES), message));
    }
    let mut lexer = Lexer::new(source);
    let next = lexer.next()?;
    let mut parser = Parser { source, lexer, next, depth: 0, comparisons: 0, regexes: 0 };
    let expression = parser.expression()?;
    parser.expect(&Token::End, "`AND`, `OR` or the end")?;
    Ok(expression)
}

struct Parser<'s> {
    source: &'s str,
    lexer: Lexer<'s>,
    /// Looked at, not yet taken.
    next: Lexeme<'s>,
    depth: usize,
    comparisons: usize,
    regexes: usize,
}

impl<'s> Parser<'s> {
    fn expression(&mut self) -> Result<Expression, FilterError> {
        let mut branches = vec![self.all()?];
        while self.next.token == Token::Or {
            self.take()?;
            branches.push(self.all()?);
        }
        Ok(Expression::any(branches))
    }

    fn all(&mut self) -> Result<Expression, FilterError> {
        let mut conjuncts = vec![self.term()?];
        loop {
            match self.next.token {
                Token::And => {
                    self.take()?;
                }
                Token::OpenParenthesis | Token::Path(_) => {}
                _ => return Ok(Expression::all(conjuncts)),
            }
            conjuncts.push(self.term()?);
        }
    }

    fn term(&mut self) -> Result<Expression, FilterError> {
        match self.next.token {
            Token::OpenParenthesis => self.nested(|parser| {
                let inner = parser.expression()?;
                parser.expect(&Token::CloseParenthesis, "`AND`, `OR` or `)`")?;
                Ok(inner)
            }),
            Token::Path(name) => self.comparison(name).map(Expression::Comparison),
            _ => Err(self.unexpected("a comparison, such as `data.size > 0`")),
        }
    }

    fn comparison(&mut self, name: &'s str) -> Result<Comparison, FilterError> {
        bump(&mut self.comparisons, MAX_COMPARISONS)
            .map_err(|()| self.error(format!("a filter may have {MAX_COMPARISONS} comparisons, not more")))?;
        let path = Path::new(name);
        self.take()?;
        let Token::Operator(operator) = self.next.token else {
            let after = quote(name);
            return Err(self.unexpected(&format!("`=`, `!=`, `<`, `>`, `<=` or `>=` after {after}")));
        };
        let sign = self.take()?.text;
        let test = match (operator, &self.next.token) {
            (Operator::Equal, Token::Regex(text)) => Test::Found(self.pattern(text)?),
            (Operator::NotEqual, Token::Regex(text)) => Test::NotFound(self.pattern(text)?),
            (_, Token::Regex(_)) => {
                return Err(self.error("a regular expression needs `=` or `!=` before it"));
            }
            _ => test(operator, Literal::from(self.value(sign)?)),
        };
        Ok(Comparison { path, test })
    }

    fn pattern(&mut self, text: &str) -> Result<Pattern, FilterError> {
        bump(&mut self.regexes, MAX_REGEXES).map_err(|()| {
            self.error(format!("a filter may have {MAX_REGEXES} regular expressions, not more"))
        })?;
        let pattern = Pattern::compile(text).map_err(|message| self.error(message))?;
        self.take()?;
        Ok(pattern)
    }

    /// A JSON value; `before` is what it follows.
    fn value(&mut self, before: &str) -> Result<Value, FilterError> {
        let value = match &mut self.next.token {
            Token::Null => Value::Null,
            Token::Boolean(boolean) => Value::Bool(*boolean),
            Token::Number(number) => Value::Number(number.clone()),
            Token::Text(text) => Value::String(std::mem::take(text)),
            Token::OpenBracket => return self.nested(Parser::array),
            Token::OpenBrace => return self.nested(Parser::object),
            _ => return Err(self.no_value(before)),
        };
        self.take()?;
        Ok(value)
    }

    fn array(&mut self) -> Result<Value, FilterError> {
        let mut elements = Vec::new();
        self.list("[", &Token::CloseBracket, "`,` or `]`", |parser, before| {
            elements.push(parser.value(before)?);
            Ok(())
        })?;
        Ok(Value::Array(elements))
    }

    fn object(&mut self) -> Result<Value, FilterError> {
        let mut members = Map::new();
        self.list("{", &Token::CloseBrace, "`,` or `}`", |parser, before| {
            let Token::Text(key) = &mut parser.next.token else {
                return Err(parser.unexpected(&format!("a key in double quotes after `{before}`")));
            };
            let key = std::mem::take(key);
            parser.take()?;
            parser.expect(&Token::Colon, "`:`")?;
            members.insert(key, parser.value(":")?);
            Ok(())
        })?;
        Ok(Value::Object(members))
    }

    /// Items with commas between them, up to `close`; `read_item` is told what its item follows.
    fn list(
        &mut self,
        open: &str,
        close: &Token<'_>,
        expected: &str,
        mut read_item: impl FnMut(&mut Parser<'s>, &str) -> Result<(), FilterError>,
    ) -> Result<(), FilterError> {
        if self.next.token != *close {
            read_item(self, open)?;
        }
        while self.next.token != *close {
            let comma = self.expect(&Token::Comma, expected)?;
            read_item(self, comma)?;
        }
        self.take()?;
        Ok(())
    }

    /// Takes what opens a level and reads what is on it.
    fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Parser<'s>) -> Result<T, FilterError>,
    ) -> Result<T, FilterError> {
        bump(&mut self.depth, MAX_DEPTH)
            .map_err(|()| self.error(format!("a filter may be nested {MAX_DEPTH} deep, not deeper")))?;
        self.take()?;
        let inner = read(self)?;
        self.depth -= 1;
        Ok(inner)
    }

    fn take(&mut self) -> Result<Lexeme<'s>, FilterError> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.next, next))
    }

    /// Takes this token, and returns its text.
    fn expect(&mut self, token: &Token<'_>, expected: &str) -> Result<&'s str, FilterError> {
        if self.next.token != *token {
            return Err(self.unexpected(expected));
        }
        Ok(self.take()?.text)
    }

    fn no_value(&self, before: &str) -> FilterError {
        let mut error = self.unexpected(&format!("a value after `{before}`"));
        if matches!(self.next.token, Token::Path(_)) || self.next.text == "'" {
            error.message.push_str(" (a string needs double quotes)");
        }
        error
    }

    fn unexpected(&self, expected: &str) -> FilterError {
        self.error(format!("expected {expected}, found {}", self.next.description()))
    }

    /// An error at the next token.
    fn error(&self, message: impl Into<String>) -> FilterError {
        FilterError::at(self.source, self.next.offset, message)
    }
}

/// Counts one more, unless there are as many as may be.
fn bump(count: &mut usize, max: usize) -> Result<(), ()> {
    if *count == max {
        return Err(());
    }
    *count += 1;
    Ok(())
}

fn test(operator: Operator, literal: Literal) -> Test {
    match operator {
        Operator::Equal => Test::Equal(literal),
        Operator::NotEqual => Test::NotEqual(literal),
        Operator::Less => Test::Less(literal),
        Operator::LessOrEqual => Test::LessOrEqual(literal),
        Operator::Greater => Test::Greater(literal),
        Operator::GreaterOrEqual => Test::GreaterOrEqual(literal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error's display; panics if there is none.
    fn error(source: &str) -> String {
        parse(source).expect_err(source).to_string()
    }

    /// `item` so often, joined.
    fn repeat(item: &str, count: usize, separator: &str) -> String {
        vec![item; count].join(separator)
    }

    #[test]
    fn an_error_says_where_and_what_was_expected() {
        let table = [
            ("", "at position 1: expected a comparison, such as `data.size > 0`, found the end"),
            ("  ", "at position 3: expected a comparison, such as `data.size > 0`, found the end"),
            ("()", "at position 2: expected a comparison, such as `data.size > 0`, found `)`"),
            ("AND a=1", "at position 1: expected a comparison, such as `data.size > 0`, found `AND`"),
            ("a=1 OR", "at position 7: expected a comparison, such as `data.size > 0`, found the end"),
            ("a=1 and or b=2", "at position 9: expected a comparison, such as `data.size > 0`, found `or`"),
            ("1 = a", "at position 1: expected a comparison, such as `data.size > 0`, found `1`"),
            ("(\"x\"=a)", "at position 2: expected a comparison, such as `data.size > 0`, found a string"),
            ("a=1 2", "at position 5: expected `AND`, `OR` or the end, found `2`"),
            ("a=1)", "at position 4: expected `AND`, `OR` or the end, found `)`"),
            ("a=1 && b=2", "at position 5: expected `AND`, `OR` or the end, found `&`"),
            ("a=1 /x/", "at position 5: expected `AND`, `OR` or the end, found a regular expression"),
            ("(a=1", "at position 5: expected `AND`, `OR` or `)`, found the end"),
            ("(a=1]", "at position 5: expected `AND`, `OR` or `)`, found `]`"),
            (
                "data.ready",
                "at position 11: expected `=`, `!=`, `<`, `>`, `<=` or `>=` after `data.ready`, found the end",
            ),
            ("a ! 1", "at position 3: expected `=`, `!=`, `<`, `>`, `<=` or `>=` after `a`, found `!`"),
            (
                "a /x/",
                "at position 3: expected `=`, `!=`, `<`, `>`, `<=` or `>=` after `a`, found a regular expression",
            ),
            ("a=/x/i", "at position 7: expected `=`, `!=`, `<`, `>`, `<=` or `>=` after `i`, found the end"),
            ("operation  = ", "at position 14: expected a value after `=`, found the end"),
            ("a == 1", "at position 4: expected a value after `=`, found `=`"),
            ("a <> 1", "at position 4: expected a value after `<`, found `>`"),
            ("a >= )", "at position 6: expected a value after `>=`, found `)`"),
            (
                "a = new",
                "at position 5: expected a value after `=`, found `new` (a string needs double quotes)",
            ),
            (
                "a = 'new'",
                "at position 5: expected a value after `=`, found `'` (a string needs double quotes)",
            ),
            ("a < /x/", "at position 5: a regular expression needs `=` or `!=` before it"),
            ("a = [", "at position 6: expected a value after `[`, found the end"),
            ("a = [1", "at position 7: expected `,` or `]`, found the end"),
            ("a = [1,]", "at position 8: expected a value after `,`, found `]`"),
            ("a = [1 2]", "at position 8: expected `,` or `]`, found `2`"),
            ("a = [/x/]", "at position 6: expected a value after `[`, found a regular expression"),
            ("a = {b: 1}", "at position 6: expected a key in double quotes after `{`, found `b`"),
            ("a = {\"b\" 1}", "at position 10: expected `:`, found `1`"),
            ("a = {\"b\":}", "at position 10: expected a value after `:`, found `}`"),
            ("a = {\"b\":1]", "at position 11: expected `,` or `}`, found `]`"),
            ("a = {\"b\":1,}", "at position 12: expected a key in double quotes after `,`, found `}`"),
            ("a = /(x/", "at position 5: this regular expression is not valid: unclosed group"),
            (
                "a = /x(?=y)/",
                "at position 5: this regular expression is not valid: look-around, including look-ahead and look-behind, is not supported",
            ),
            ("a=\"äöü𝄞\" ?", "at position 10: expected `AND`, `OR` or the end, found `?`"),
        ];
        for (source, expected) in table {
            assert_eq!(error(source), expected, "{source}");
        }
    }

    #[test]
    fn a_long_name_is_cut_where_an_error_quotes_it() {
        let cut = format!("`{}…`", "é".repeat(40));
        let expected =
            format!("at position 46: expected `=`, `!=`, `<`, `>`, `<=` or `>=` after {cut}, found the end");
        assert_eq!(error(&"é".repeat(45)), expected);
    }

    #[test]
    fn the_length_of_a_filter_is_bounded() {
        let longest = |bytes: usize| format!("a = \"{}\"", "é".repeat((bytes - 6) / 2));
        assert!(parse(&longest(4096)).is_ok());
        assert_eq!(
            error(&longest(4098)),
            "at position 2051: a filter may have 4096 bytes, this one has 4098"
        );
    }

    #[test]
    fn nesting_is_bounded() {
        let parentheses = |depth| format!("{}a=1{}", repeat("(", depth, ""), repeat(")", depth, ""));
        assert!(parse(&parentheses(32)).is_ok());
        assert_eq!(error(&parentheses(33)), "at position 33: a filter may be nested 32 deep, not deeper");
        let arrays = |depth| format!("(a={}{})", repeat("[", depth, ""), repeat("]", depth, ""));
        assert!(parse(&arrays(31)).is_ok());
        assert_eq!(error(&arrays(32)), "at position 35: a filter may be nested 32 deep, not deeper");
        let objects = |depth| format!("a={}1{}", repeat("{\"k\":", depth, ""), repeat("}", depth, ""));
        assert!(parse(&objects(32)).is_ok());
        assert_eq!(error(&objects(33)), "at position 163: a filter may be nested 32 deep, not deeper");
        assert_eq!(error(&"(".repeat(4096)), "at position 33: a filter may be nested 32 deep, not deeper");
        assert!(parse(&repeat("(((a=1)))", 50, "")).is_ok(), "side by side is not deep");
    }

    #[test]
    fn comparisons_are_bounded() {
        assert!(parse(&repeat("a=1", 100, " OR ")).is_ok());
        let expected = "at position 401: a filter may have 100 comparisons, not more";
        assert_eq!(error(&repeat("a=1", 101, " ")), expected);
    }

    #[test]
    fn regular_expressions_are_bounded_in_number_and_size() {
        assert!(parse(&repeat("a=/x/", 4, " OR ")).is_ok());
        let expected = "at position 27: a filter may have 4 regular expressions, not more";
        assert_eq!(error(&repeat("a=/x/", 5, " ")), expected);
        assert!(parse(r"a = /^\w+@\w+\.\w+$/").is_ok());
        let expected = "at position 5: this regular expression takes more than 256 KiB when compiled";
        for pattern in [r"\w{100}", "(?:a{1000}){1000}", "(?:(?:(?:x?){100}){100}){100}"] {
            assert_eq!(error(&format!("a = /{pattern}/")), expected);
        }
    }

    #[test]
    fn and_binds_tighter_than_or_and_side_by_side_means_and() {
        let same = [
            ("a=1 OR b=2 AND c=3", "a=1 OR (b=2 AND c=3)"),
            ("a=1 AND b=2 OR c=3", "((a=1) b=2) OR c=3"),
            ("a=1 OR b=2 c=3 OR d=4", "a=1 OR (b=2 AND c=3) OR d=4"),
            ("a=1(b=2 OR c=3)d=4", "a=1 and (b=2 or c=3) And d=4"),
            ("(a=1 OR b=2)(c=3)", "(a=1 OR b=2) AND c=3"),
            ("(a=1 AND (b=2 c=3)) d=4", "a=1 AND b=2 AND c=3 AND d=4"),
            ("a=1 OR (b=2 OR (c=3))", "a=1 OR b=2 OR c=3"),
            ("event_type=TRUE\n\tAND\u{a0}x=Null", "category=true x=null"),
        ];
        for (source, spelled_out) in same {
            let [one, two] = [source, spelled_out].map(|source| format!("{:?}", parse(source).unwrap()));
            assert_eq!(one, two, "{source}");
        }
    }
}
