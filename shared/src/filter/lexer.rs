//! Cuts a filter's text into tokens. Only what is wrong inside a token is an error here; a character that
//! begins none is handed on as [`Token::Unknown`], so that the parser can say what it expected instead.

use serde_json::Number;

use super::FilterError;

/// Longer pieces of the text are cut when an error quotes them.
const MAX_QUOTED_CHARS: usize = 40;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'s> {
    OpenParenthesis,
    CloseParenthesis,
    OpenBracket,
    CloseBracket,
    OpenBrace,
    CloseBrace,
    Comma,
    Colon,
    Operator(Operator),
    And,
    Or,
    /// A dotted path, of which no name is empty.
    Path(&'s str),
    Null,
    Boolean(bool),
    Number(Number),
    /// A string, its escapes resolved.
    Text(String),
    /// What stands between the slashes, as written.
    Regex(&'s str),
    Unknown,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A token and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lexeme<'s> {
    pub(super) token: Token<'s>,
    /// In bytes from the start of the source.
    pub(super) offset: usize,
    pub(super) text: &'s str,
}

impl Lexeme<'_> {
    /// How an error names it.
    pub(super) fn description(&self) -> String {
        match self.token {
            Token::End => "the end".to_owned(),
            Token::Text(_) => "a string".to_owned(),
            Token::Regex(_) => "a regular expression".to_owned(),
            _ => quote(self.text),
        }
    }
}

pub(super) struct Lexer<'s> {
    source: &'s str,
    offset: usize,
}

impl<'s> Lexer<'s> {
    pub(super) fn new(source: &'s str) -> Lexer<'s> {
        Lexer { source, offset: 0 }
    }

    /// The next token; at the end [`Token::End`], as often as asked.
    pub(super) fn next(&mut self) -> Result<Lexeme<'s>, FilterError> {
        let rest = self.source[self.offset..].trim_start();
        let offset = self.source.len() - rest.len();
        let (token, length) = scan(rest).map_err(|Malformed { offset: inner, message }| {
            FilterError::at(self.source, offset + inner, message)
        })?;
        self.offset = offset + length;
        Ok(Lexeme { token, offset, text: &rest[..length] })
    }
}

/// What is wrong inside a token, and how many bytes into it.
struct Malformed {
    offset: usize,
    message: String,
}

/// The token that `rest` begins with, and its length in bytes.
fn scan(rest: &str) -> Result<(Token<'_>, usize), Malformed> {
    let Some(first) = rest.chars().next() else { return Ok((Token::End, 0)) };
    let token = match first {
        '(' => Token::OpenParenthesis,
        ')' => Token::CloseParenthesis,
        '[' => Token::OpenBracket,
        ']' => Token::CloseBracket,
        '{' => Token::OpenBrace,
        '}' => Token::CloseBrace,
        ',' => Token::Comma,
        ':' => Token::Colon,
        '!' | '<' | '>' | '=' => return Ok(operator(rest)),
        '"' => return text(rest),
        '/' => return regex(rest),
        '-' | '0'..='9' => return number(rest),
        _ if first.is_alphabetic() || first == '_' => return word(rest),
        _ => Token::Unknown,
    };
    Ok((token, first.len_utf8()))
}

fn operator(rest: &str) -> (Token<'_>, usize) {
    const OPERATORS: [(&str, Operator); 6] = [
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("=", Operator::Equal),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let found = OPERATORS.iter().find(|(sign, _)| rest.starts_with(sign));
    found.map_or((Token::Unknown, 1), |(sign, operator)| (Token::Operator(*operator), sign.len()))
}

fn text(rest: &str) -> Result<(Token<'_>, usize), Malformed> {
    let length = delimited(rest, '"').ok_or_else(|| Malformed::new("this string has no closing `\"`"))?;
    let text = serde_json::from_str(&rest[..length]).map_err(|_| {
        Malformed::new("this string has an escape that JSON does not know, or a control character")
    })?;
    Ok((Token::Text(text), length))
}

fn regex(rest: &str) -> Result<(Token<'_>, usize), Malformed> {
    let length =
        delimited(rest, '/').ok_or_else(|| Malformed::new("this regular expression has no closing `/`"))?;
    Ok((Token::Regex(&rest[1..length - 1]), length))
}

/// The length of what begins with `delimiter` and ends with the next one that no backslash escapes.
fn delimited(rest: &str, delimiter: char) -> Option<usize> {
    let mut escaped = false;
    let end = rest.char_indices().skip(1).find(|(_, character)| {
        let ends = *character == delimiter && !escaped;
        escaped = *character == '\\' && !escaped;
        ends
    });
    end.map(|(index, _)| index + delimiter.len_utf8())
}

fn number(rest: &str) -> Result<(Token<'_>, usize), Malformed> {
    let belongs = |character: char| character.is_alphanumeric() || "+-._".contains(character);
    let digits = &rest[..length_while(rest, belongs)];
    match serde_json::from_str(digits) {
        Ok(number) => Ok((Token::Number(number), digits.len())),
        Err(_) => Err(Malformed::new(format!(
            "{} is not a JSON number within the range of a double",
            quote(digits)
        ))),
    }
}

fn word(rest: &str) -> Result<(Token<'_>, usize), Malformed> {
    let belongs = |character: char| character.is_alphanumeric() || "_-.".contains(character);
    let word = &rest[..length_while(rest, belongs)];
    let token = match word.to_ascii_lowercase().as_str() {
        "and" => Token::And,
        "or" => Token::Or,
        "null" => Token::Null,
        "true" => Token::Boolean(true),
        "false" => Token::Boolean(false),
        _ => Token::Path(word),
    };
    let mut offset = 0;
    for name in word.split('.') {
        if name.is_empty() {
            let message = format!("expected a name after {}", quote(&word[..offset]));
            return Err(Malformed { offset, message });
        }
        offset += name.len() + 1;
    }
    Ok((token, word.len()))
}

fn length_while(rest: &str, belongs: impl Fn(char) -> bool) -> usize {
    rest.find(|character| !belongs(character)).unwrap_or(rest.len())
}

/// A piece of the source between backticks, cut where it is long.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED_CHARS) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

impl Malformed {
    /// Something that is wrong with the token as a whole.
    fn new(message: impl Into<String>) -> Malformed {
        Malformed { offset: 0, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All tokens with the bytes they stand at, up to the end.
    fn tokens(source: &str) -> Vec<(Token<'_>, usize)> {
        let mut lexer = Lexer::new(source);
        let mut tokens = Vec::new();
        loop {
            let lexeme = lexer.next().unwrap();
            if lexeme.token == Token::End {
                return tokens;
            }
            tokens.push((lexeme.token, lexeme.offset));
        }
    }

    fn error(source: &str) -> String {
        let mut lexer = Lexer::new(source);
        loop {
            match lexer.next() {
                Ok(lexeme) => assert_ne!(lexeme.token, Token::End, "{source} has no error"),
                Err(error) => return error.to_string(),
            }
        }
    }

    #[test]
    fn tokens_need_no_space_between_them() {
        let found = tokens("dàta.x-1.0>=-1.5E+3(_y!=/\\/[/AnD!TRUE");
        let expected = [
            (Token::Path("dàta.x-1.0"), 0),
            (Token::Operator(Operator::GreaterOrEqual), 11),
            (Token::Number(Number::from_f64(-1500.0).unwrap()), 13),
            (Token::OpenParenthesis, 20),
            (Token::Path("_y"), 21),
            (Token::Operator(Operator::NotEqual), 23),
            (Token::Regex("\\/["), 25),
            (Token::And, 30),
            (Token::Unknown, 33),
            (Token::Boolean(true), 34),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_keyword_is_one_by_itself_alone() {
        for word in ["data.and", "or.x", "nullable", "true-ish", "and_"] {
            assert_eq!(tokens(word), [(Token::Path(word), 0)]);
        }
    }

    #[test]
    fn a_string_has_the_escapes_of_json() {
        let table = [
            (r#""""#, ""),
            (r#""a\"b""#, "a\"b"),
            (r#""\\""#, "\\"),
            (r#""\u00e9\n\/""#, "é\n/"),
            (r#""\ud834\udd1e𝄞""#, "𝄞𝄞"),
        ];
        for (source, text) in table {
            assert_eq!(tokens(source), [(Token::Text(text.to_owned()), 0)]);
        }
    }

    #[test]
    fn a_malformed_token_is_an_error_where_it_begins() {
        let string = "this string has an escape that JSON does not know, or a control character";
        let number = "is not a JSON number within the range of a double";
        let table = [
            ("é \"x", "at position 3: this string has no closing `\"`".to_owned()),
            (r#""x\""#, "at position 1: this string has no closing `\"`".to_owned()),
            (r#""\x""#, format!("at position 1: {string}")),
            (r#""\ud834""#, format!("at position 1: {string}")),
            ("\"a\nb\"", format!("at position 1: {string}")),
            ("𝄞 /x\\/", "at position 3: this regular expression has no closing `/`".to_owned()),
            ("/", "at position 1: this regular expression has no closing `/`".to_owned()),
            ("(007", format!("at position 2: `007` {number}")),
            ("1e400", format!("at position 1: `1e400` {number}")),
            ("-", format!("at position 1: `-` {number}")),
            ("1.", format!("at position 1: `1.` {number}")),
            ("0AND", format!("at position 1: `0AND` {number}")),
            ("data.", "at position 6: expected a name after `data.`".to_owned()),
            ("data..x", "at position 6: expected a name after `data.`".to_owned()),
            ("and.", "at position 5: expected a name after `and.`".to_owned()),
        ];
        for (source, expected) in table {
            assert_eq!(error(source), expected, "{source}");
        }
    }
}
