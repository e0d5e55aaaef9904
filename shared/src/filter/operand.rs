//! The two sides of a comparison, and what equality and order mean between them. One view, [`Operand`],
//! serves the literals of a filter, an event's attributes and the values in its data.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::Attribute;

/// A value, borrowed from the event or the filter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operand<'a> {
    Null,
    Boolean(bool),
    Number(Number),
    Text(&'a str),
    /// An array or an object.
    Composite(&'a Value),
}

impl<'a> Operand<'a> {
    /// Whether both are of one type and worth the same.
    pub(super) fn equals(self, other: Operand<'_>) -> bool {
        match (self, other) {
            (Operand::Null, Operand::Null) => true,
            (Operand::Boolean(one), Operand::Boolean(two)) => one == two,
            (Operand::Number(one), Operand::Number(two)) => one == two,
            (Operand::Text(one), Operand::Text(two)) => one == two,
            (Operand::Composite(one), Operand::Composite(two)) => equal_in_depth(one, two),
            _ => false,
        }
    }

    /// How they are ordered: two numbers or two strings are, nothing else is.
    pub(super) fn order(self, other: Operand<'_>) -> Option<Ordering> {
        match (self, other) {
            (Operand::Number(one), Operand::Number(two)) => Some(one.cmp(&two)),
            (Operand::Text(one), Operand::Text(two)) => Some(one.cmp(two)),
            _ => None,
        }
    }

    /// The key of a string, number or boolean. Two operands that have one are equal if their keys are.
    pub(super) fn index_key(self) -> Option<IndexKey<'a>> {
        match self {
            Operand::Boolean(boolean) => Some(IndexKey(Scalar::Boolean(boolean))),
            Operand::Number(number) => Some(IndexKey(Scalar::Number(number))),
            Operand::Text(text) => Some(IndexKey(Scalar::Text(Cow::Borrowed(text)))),
            Operand::Null | Operand::Composite(_) => None,
        }
    }
}

/// Goes no deeper than the shallower of the two, and a filter's literal is bounded by the parser.
fn equal_in_depth(one: &Value, two: &Value) -> bool {
    let equal = |one: &Value, two: &Value| Operand::from(one).equals(Operand::from(two));
    match (one, two) {
        (Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| equal(one, two))
        }
        (Value::Object(one), Value::Object(two)) => {
            one.len() == two.len()
                && one.iter().all(|(key, one)| two.get(key).is_some_and(|two| equal(one, two)))
        }
        _ => false,
    }
}

impl<'a> From<&'a Value> for Operand<'a> {
    fn from(value: &'a Value) -> Operand<'a> {
        match value {
            Value::Null => Operand::Null,
            Value::Bool(boolean) => Operand::Boolean(*boolean),
            Value::Number(number) => Operand::Number(Number::from(number)),
            Value::String(text) => Operand::Text(text),
            Value::Array(_) | Value::Object(_) => Operand::Composite(value),
        }
    }
}

impl<'a> From<Attribute<'a>> for Operand<'a> {
    fn from(attribute: Attribute<'a>) -> Operand<'a> {
        match attribute {
            Attribute::Text(text) => Operand::Text(text),
            Attribute::Integer(integer) => Operand::Number(Number::Integer(integer)),
            Attribute::Boolean(boolean) => Operand::Boolean(boolean),
        }
    }
}

/// A literal of the filter, smaller than a [`Value`].
#[derive(Debug)]
pub(super) enum Literal {
    Null,
    Boolean(bool),
    Number(Number),
    Text(Box<str>),
    Composite(Box<Value>),
}

impl Literal {
    pub(super) fn as_operand(&self) -> Operand<'_> {
        match self {
            Literal::Null => Operand::Null,
            Literal::Boolean(boolean) => Operand::Boolean(*boolean),
            Literal::Number(number) => Operand::Number(*number),
            Literal::Text(text) => Operand::Text(text),
            Literal::Composite(value) => Operand::Composite(value),
        }
    }
}

impl From<Value> for Literal {
    fn from(value: Value) -> Literal {
        match value {
            Value::Null => Literal::Null,
            Value::Bool(boolean) => Literal::Boolean(boolean),
            Value::Number(number) => Literal::Number(Number::from(&number)),
            Value::String(text) => Literal::Text(text.into_boxed_str()),
            Value::Array(_) | Value::Object(_) => Literal::Composite(Box::new(value)),
        }
    }
}

/// A number in its one form: equal numbers have the same variant and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Number {
    Integer(i64),
    /// An integer above `i64::MAX`.
    LargeInteger(u64),
    /// The bits of a finite double that is no 64-bit integer.
    Double(u64),
}

impl Number {
    fn as_integer(self) -> Result<i128, f64> {
        match self {
            Number::Integer(integer) => Ok(integer.into()),
            Number::LargeInteger(integer) => Ok(integer.into()),
            Number::Double(bits) => Err(f64::from_bits(bits)),
        }
    }
}

impl From<&serde_json::Number> for Number {
    fn from(number: &serde_json::Number) -> Number {
        if let Some(integer) = number.as_i64() {
            return Number::Integer(integer);
        }
        if let Some(integer) = number.as_u64() {
            return Number::LargeInteger(integer);
        }
        // `None` is beyond a double's range, which serde_json lets in with `arbitrary_precision` alone.
        let double = number.as_f64().unwrap_or(f64::INFINITY);
        // A whole double is converted exactly, or to an end of i128, which neither type below can hold.
        let integer = if double.fract() == 0.0 { double as i128 } else { i128::MAX };
        match (i64::try_from(integer), u64::try_from(integer)) {
            (Ok(integer), _) => Number::Integer(integer),
            (_, Ok(integer)) => Number::LargeInteger(integer),
            _ => Number::Double(double.to_bits()),
        }
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Number) -> Ordering {
        // A double here is never equal to an integer, so its floor alone decides.
        match (self.as_integer(), other.as_integer()) {
            (Ok(one), Ok(two)) => one.cmp(&two),
            (Err(one), Err(two)) => one.total_cmp(&two),
            (Ok(one), Err(two)) if one <= two.floor() as i128 => Ordering::Less,
            (Ok(_), Err(_)) => Ordering::Greater,
            (Err(_), Ok(_)) => other.cmp(self).reverse(),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A string, number or boolean as the key of a hash map. Values that the language holds equal have equal
/// keys, wherever they come from: `1` and `1.0`, a string of the data and one of an attribute.
///
/// A map of `IndexKey<'static>` can be asked for a key that borrows from an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IndexKey<'a>(Scalar<'a>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Scalar<'a> {
    Boolean(bool),
    Number(Number),
    Text(Cow<'a, str>),
}

impl IndexKey<'_> {
    /// The key with its own copy of the string.
    pub fn into_owned(self) -> IndexKey<'static> {
        IndexKey(match self.0 {
            Scalar::Boolean(boolean) => Scalar::Boolean(boolean),
            Scalar::Number(number) => Scalar::Number(number),
            Scalar::Text(text) => Scalar::Text(Cow::Owned(text.into_owned())),
        })
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.0, Scalar::Text(_))
    }

    pub(super) fn is_boolean(&self) -> bool {
        matches!(self.0, Scalar::Boolean(_))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Number {
        Number::from(&text.parse::<serde_json::Number>().unwrap())
    }

    #[test]
    fn numbers_are_ordered_exactly() {
        let ascending = [
            "-1.7976931348623157e308",
            "-9223372036854777856.0",
            "-9223372036854775808",
            "-9223372036854775807",
            "-1.5",
            "-1",
            "-5e-324",
            "0",
            "5e-324",
            "0.5",
            "1",
            "9007199254740992",
            "9007199254740993",
            "9007199254740994.0",
            "9223372036854775807",
            "9223372036854775808.0",
            "9223372036854775809",
            "18446744073709551615",
            "18446744073709551616.0",
            "1e308",
        ];
        let numbers = ascending.map(number);
        for (index, one) in numbers.iter().enumerate() {
            for (other_index, other) in numbers.iter().enumerate() {
                assert_eq!(one.cmp(other), index.cmp(&other_index), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_number_has_one_form_however_it_is_written() {
        let table = [
            ("1", "1.0"),
            ("0", "-0.0"),
            ("0", "-0"),
            ("100", "1e2"),
            ("-9223372036854775808", "-9223372036854775808.0"),
            ("9223372036854775808", "9.223372036854775808e18"),
            ("18446744073709549568", "18446744073709549568.0"),
            ("1e19", "10000000000000000000"),
            ("1e20", "100000000000000000000"),
        ];
        for (one, two) in table {
            assert_eq!(number(one), number(two));
            assert_eq!(Operand::Number(number(one)).index_key(), Operand::Number(number(two)).index_key());
        }
    }

    proptest! {
        #[test]
        fn keys_are_equal_exactly_where_numbers_are(one: i64, two: f64, three: u64) {
            let values = [one.into(), (one as f64).into(), two.into(), two.trunc().into(), three.into()];
            let operands: Vec<Operand<'_>> = values.iter().map(Operand::<'_>::from).collect();
            for (left, right) in operands.iter().flat_map(|left| operands.iter().map(move |right| (left, right))) {
                let equal = left.equals(*right);
                prop_assert_eq!(equal, left.index_key() == right.index_key());
                prop_assert_eq!(equal, left.order(*right) == Some(Ordering::Equal));
                prop_assert_eq!(left.order(*right), right.order(*left).map(Ordering::reverse));
            }
            prop_assert_eq!(operands[0].order(operands[4]), Some(i128::from(one).cmp(&three.into())));
        }
    }
}
