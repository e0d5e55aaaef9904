//! A filter as it is kept and evaluated: a tree whose leaves are comparisons. The parser bounds its depth,
//! so walking it by recursion is safe.

use std::cmp::Ordering;

use super::Subject;
use super::operand::{IndexKey, Literal, Operand};
use super::path::Path;
use super::pattern::Pattern;

#[derive(Debug)]
pub(super) enum Expression {
    /// At least two, none of them an `All` itself.
    All(Box<[Expression]>),
    /// At least two, none of them an `Any` itself.
    Any(Box<[Expression]>),
    Comparison(Comparison),
}

#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) path: Path,
    pub(super) test: Test,
}

/// What is asked of the value at a path.
#[derive(Debug)]
pub(super) enum Test {
    Equal(Literal),
    NotEqual(Literal),
    Less(Literal),
    LessOrEqual(Literal),
    Greater(Literal),
    GreaterOrEqual(Literal),
    Found(Pattern),
    NotFound(Pattern),
}

impl Expression {
    /// All of these at once, at least one; what is `All` already is taken apart.
    pub(super) fn all(conjuncts: Vec<Expression>) -> Expression {
        let mut flat = Vec::with_capacity(conjuncts.len());
        for conjunct in conjuncts {
            match conjunct {
                Expression::All(parts) => flat.extend(parts),
                other => flat.push(other),
            }
        }
        if flat.len() == 1 { flat.remove(0) } else { Expression::All(flat.into()) }
    }

    /// Any one of these, at least one; what is `Any` already is taken apart.
    pub(super) fn any(branches: Vec<Expression>) -> Expression {
        let mut flat = Vec::with_capacity(branches.len());
        for branch in branches {
            match branch {
                Expression::Any(parts) => flat.extend(parts),
                other => flat.push(other),
            }
        }
        if flat.len() == 1 { flat.remove(0) } else { Expression::Any(flat.into()) }
    }

    pub(super) fn holds(&self, event: &(impl Subject + ?Sized)) -> bool {
        match self {
            Expression::All(conjuncts) => conjuncts.iter().all(|conjunct| conjunct.holds(event)),
            Expression::Any(branches) => branches.iter().any(|branch| branch.holds(event)),
            Expression::Comparison(comparison) => comparison.test.passes(comparison.path.lookup(event)),
        }
    }

    /// What must hold, each by itself, for the whole to hold.
    pub(super) fn conjuncts(&self) -> &[Expression] {
        match self {
            Expression::All(conjuncts) => conjuncts,
            Expression::Any(_) | Expression::Comparison(_) => std::slice::from_ref(self),
        }
    }

    /// The path and the key, if this is `path = literal` with a string, number or boolean.
    pub(super) fn as_scalar_equality(&self) -> Option<(&Path, IndexKey<'_>)> {
        match self {
            Expression::Comparison(Comparison { path, test: Test::Equal(literal) }) => {
                Some((path, literal.as_operand().index_key()?))
            }
            _ => None,
        }
    }

    /// Whether any comparison's path leads into the event's data.
    pub(super) fn reads_data(&self) -> bool {
        match self {
            Expression::All(parts) | Expression::Any(parts) => parts.iter().any(Expression::reads_data),
            Expression::Comparison(comparison) => comparison.path.is_in_data(),
        }
    }
}

impl Test {
    fn passes(&self, value: Operand<'_>) -> bool {
        let order = |literal: &Literal| value.order(literal.as_operand());
        match self {
            Test::Equal(literal) => value.equals(literal.as_operand()),
            Test::NotEqual(literal) => !value.equals(literal.as_operand()),
            Test::Less(literal) => order(literal).is_some_and(Ordering::is_lt),
            Test::LessOrEqual(literal) => order(literal).is_some_and(Ordering::is_le),
            Test::Greater(literal) => order(literal).is_some_and(Ordering::is_gt),
            Test::GreaterOrEqual(literal) => order(literal).is_some_and(Ordering::is_ge),
            Test::Found(pattern) => pattern.is_found_in(value),
            Test::NotFound(pattern) => !pattern.is_found_in(value),
        }
    }
}
