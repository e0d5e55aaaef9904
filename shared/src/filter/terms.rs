//! A filter as a list of terms that must all hold, each as it is written.
//!
//! By this a part of a filter can be shown and changed by itself, as the fields of a dialect's webhook are,
//! while the rest stays what its author wrote.

use super::FilterError;
use super::lexer::{Lexer, Operator, Token};

/// Part of a filter's text; the filter holds when all of its terms do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term(String);

impl Term {
    /// The terms of a filter, in their order. One with an `OR` outside of all parentheses is a single term,
    /// to which parentheses are added. It must be a filter that
    /// [`Filter::parse`](super::Filter::parse) reads.
    pub fn all_of(filter: &str) -> Result<Vec<Self>, FilterError> {
        let mut lexer = Lexer::new(filter);
        let mut terms = Vec::new();
        let (mut depth, mut start, mut end) = (0_usize, 0, 0);
        loop {
            let lexeme = lexer.next()?;
            let ends = match lexeme.token {
                Token::Or if depth == 0 => return Ok(vec![Self::nested(filter)]),
                // Side by side means AND.
                Token::And | Token::Path(_) | Token::OpenParenthesis | Token::End => depth == 0,
                _ => false,
            };
            if ends {
                if end > start {
                    terms.push(Self(filter[start..end].to_owned()));
                }
                start = lexeme.offset;
            }
            end = lexeme.offset + lexeme.text.len();
            match lexeme.token {
                Token::End => return Ok(terms),
                Token::And if depth == 0 => start = next_start(filter, end),
                Token::OpenParenthesis | Token::OpenBracket | Token::OpenBrace => depth += 1,
                Token::CloseParenthesis | Token::CloseBracket | Token::CloseBrace => {
                    depth = depth.saturating_sub(1);
                }
                _ => {}
            }
        }
    }

    /// The term `path = "text"`.
    #[must_use]
    pub fn equals(path: &str, text: &str) -> Self {
        Self(format!("{path} = {}", serde_json::Value::from(text)))
    }

    /// The term `(path = "one" OR path = "other" OR …)`: the text there is one of these.
    #[must_use]
    pub fn one_of(path: &str, texts: &[String]) -> Self {
        let equalities: Vec<String> = texts.iter().map(|text| Self::equals(path, text).0).collect();
        Self::nested(&equalities.join(" OR "))
    }

    /// The term `path = null`.
    #[must_use]
    pub fn is_null(path: &str) -> Self {
        Self(format!("{path} = null"))
    }

    /// The term `path != null`.
    #[must_use]
    pub fn is_not_null(path: &str) -> Self {
        Self(format!("{path} != null"))
    }

    /// Any filter as a term: in parentheses.
    #[must_use]
    pub fn nested(filter: &str) -> Self {
        Self(format!("({})", filter.trim()))
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The filter that stands in parentheses, if all of it does.
    #[must_use]
    pub fn as_nested(&self) -> Option<&str> {
        self.0.strip_prefix('(')?.strip_suffix(')').map(str::trim)
    }

    /// The text, if this is `path = "text"`.
    #[must_use]
    pub fn as_equal(&self, path: &str) -> Option<String> {
        let mut lexer = Lexer::new(&self.0);
        let mut next = || lexer.next().ok().map(|lexeme| lexeme.token);
        let text = equality(&mut next, path)?;
        (next()? == Token::End).then_some(text)
    }

    /// The texts, if this is `(path = "one" OR path = "other" OR …)`, in parentheses also where it is one alone.
    #[must_use]
    pub fn as_one_of(&self, path: &str) -> Option<Vec<String>> {
        let mut lexer = Lexer::new(self.as_nested()?);
        let mut next = || lexer.next().ok().map(|lexeme| lexeme.token);
        let mut texts = Vec::new();
        loop {
            texts.push(equality(&mut next, path)?);
            match next()? {
                Token::Or => {}
                Token::End => return Some(texts),
                _ => return None,
            }
        }
    }

    /// The filter of these terms; none: no filter at all.
    #[must_use]
    pub fn join(terms: &[Self]) -> Option<String> {
        let texts: Vec<&str> = terms.iter().map(Self::as_str).collect();
        (!texts.is_empty()).then(|| texts.join(" AND "))
    }
}

/// The text, if `path = "text"` comes next.
fn equality<'s>(next: &mut impl FnMut() -> Option<Token<'s>>, path: &str) -> Option<String> {
    match (next()?, next()?, next()?) {
        (Token::Path(own), Token::Operator(Operator::Equal), Token::Text(text)) if own == path => Some(text),
        _ => None,
    }
}

/// Behind the spaces.
fn next_start(filter: &str, at: usize) -> usize {
    let rest = &filter[at..];
    at + rest.len() - rest.trim_start().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Filter;

    fn texts(filter: &str) -> Vec<String> {
        Filter::parse(filter).unwrap();
        Term::all_of(filter).unwrap().into_iter().map(|term| term.0).collect()
    }

    #[test]
    fn a_filter_is_cut_where_all_must_hold() {
        for (filter, expected) in [
            ("a = 1", &["a = 1"][..]),
            (" a=1 and b=/x AND y/ ", &["a=1", "b=/x AND y/"]),
            ("a = 1 AND (b = 2 OR c = 3)", &["a = 1", "(b = 2 OR c = 3)"]),
            (
                "a=1 AND b>0 (c=\"CLOSED\" OR c=\"x)\") AND d!=null",
                &["a=1", "b>0", "(c=\"CLOSED\" OR c=\"x)\")", "d!=null"],
            ),
            ("a=[1,{\"b\":[\"AND\"]}] b=2", &["a=[1,{\"b\":[\"AND\"]}]", "b=2"]),
            ("a = 1 OR b = 2 AND c = 3", &["(a = 1 OR b = 2 AND c = 3)"]),
            ("((a = 1))", &["((a = 1))"]),
        ] {
            assert_eq!(texts(filter), expected, "{filter}");
            let joined = Term::join(&Term::all_of(filter).unwrap()).unwrap();
            assert_eq!(texts(&joined), expected, "{joined}");
        }
        assert_eq!(Term::join(&[]), None);
    }

    #[test]
    fn a_term_tells_what_it_is() {
        let term = |text: &str| Term(text.to_owned());
        let hostile = "a\"b\\ \n/ü) OR";
        assert_eq!(Term::equals("subject", hostile).as_equal("subject").as_deref(), Some(hostile));
        assert_eq!(term("realm=\"x\"").as_equal("realm").as_deref(), Some("x"));
        for other in ["realm = 1", "realm != \"x\"", "realm = /x/", "(realm = \"x\")", "realms = \"x\""] {
            assert_eq!(term(other).as_equal("realm"), None, "{other}");
        }
        let texts = [hostile.to_owned(), "x".to_owned(), "x".to_owned()];
        for texts in [&texts[..], &texts[1..], &texts[2..]] {
            assert_eq!(Term::one_of("category", texts).as_one_of("category").as_deref(), Some(texts));
        }
        for other in
            ["a = \"x\"", "(a = \"x\" AND a = \"y\")", "(a = \"x\" OR b = \"x\")", "(a = \"x\" OR)", "()"]
        {
            assert_eq!(term(other).as_one_of("a"), None, "{other}");
        }
        assert_eq!(term("( a = 1 )").as_nested(), Some("a = 1"));
        assert_eq!(term("a = \")\"").as_nested(), None);
    }
}
