//! What a schema may cost: bounds on its size with references followed, its depth, and what is dear in it.
//!
//! A few lines of schema can stand for work without end: definitions that refer to one another twice each double
//! with every step, a schema that refers to itself doubles with every level of the event. So references are
//! followed here as the validator will follow them, and a schema is refused as soon as it is too large. Whether
//! a member is a keyword or the name of a property is not asked: what looks like a reference counts as one.

use serde_json::{Map, Value};

use super::{Misfit, Size};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Values in the schema, references followed: twenty-five times what the largest of the catalogue has.
const MAX_VALUES: usize = 2_000;
/// Levels, references followed: the validator takes some kilobytes of the stack for each.
const MAX_DEPTH: usize = 64;
/// Patterns, each with up to 64 KiB of memory.
const MAX_PATTERNS: usize = 16;
/// Each makes the validator look twice at what is below it: sixteen times at most.
const MAX_UNEVALUATED: usize = 4;

/// The schema's size, references followed; the error's path leads into the schema.
pub(super) fn check(schema: &Value) -> Result<Size, Misfit> {
    let Value::Object(root) = schema else { return Err(Misfit::new("", "must be an object")) };
    if root
        .get("$schema")
        .is_some_and(|draft| draft.as_str().map(|it| it.trim_end_matches('#')) != Some(DRAFT))
    {
        return Err(Misfit::new("$schema", format!("must be {DRAFT:?}, or be left out")));
    }
    let size = Size { values: 0, patterns: 0 };
    let mut walk = Walk { root: schema, followed: Vec::new(), size, unevaluated: 0 };
    walk.visit(schema, 0)?;
    Ok(walk.size)
}

struct Walk<'a> {
    root: &'a Value,
    /// The references that lead to where the walk is.
    followed: Vec<&'a str>,
    size: Size,
    unevaluated: usize,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, value: &'a Value, depth: usize) -> Result<(), Misfit> {
        self.size.values += 1;
        let bound = |count: usize, limit: usize, what: &str| match count > limit {
            true => Err(Misfit::new("", format!("has more than {limit} {what}, references followed"))),
            false => Ok(()),
        };
        bound(self.size.values, MAX_VALUES, "values")?;
        bound(depth, MAX_DEPTH, "levels")?;
        match value {
            Value::Array(elements) => elements.iter().try_for_each(|element| self.visit(element, depth + 1)),
            Value::Object(members) => {
                self.size.patterns += usize::from(members.get("pattern").is_some_and(Value::is_string));
                self.size.patterns +=
                    members.get("patternProperties").and_then(Value::as_object).map_or(0, Map::len);
                self.unevaluated += members.keys().filter(|name| name.starts_with("unevaluated")).count();
                bound(self.size.patterns, MAX_PATTERNS, "patterns")?;
                bound(self.unevaluated, MAX_UNEVALUATED, "unevaluated… keywords")?;
                members.iter().try_for_each(|(name, member)| self.visit_member(name, member, depth))
            }
            _ => Ok(()),
        }
    }

    fn visit_member(&mut self, name: &'a str, member: &'a Value, depth: usize) -> Result<(), Misfit> {
        self.visit(member, depth + 1)?;
        let Value::String(text) = member else { return Ok(()) };
        match name {
            "$ref" => self.follow(text, depth),
            "$id" if depth > 0 => Err(Misfit::new(name, "is accepted at the top alone")),
            "$schema" if depth > 0 => Err(Misfit::new(name, "is accepted at the top alone")),
            "$anchor" | "$dynamicAnchor" | "$dynamicRef" | "$recursiveRef" => {
                Err(Misfit::new(name, "is not supported: refer by `\"$ref\": \"#/$defs/…\"`"))
            }
            // Its check compiles each value that it meets.
            "format" if text == "regex" => Err(Misfit::new(name, "must not be \"regex\"")),
            _ => Ok(()),
        }
    }

    fn follow(&mut self, reference: &'a str, depth: usize) -> Result<(), Misfit> {
        let refuse = |reason: &str| Err(Misfit::new("$ref", format!("is {:?}, {reason}", cut(reference))));
        // Percent-encoding would be a second way to name the same place.
        let Some(pointer) = reference.strip_prefix('#').filter(|pointer| !pointer.contains('%')) else {
            return refuse("and must lead to a place in this schema, as \"#/$defs/…\" does");
        };
        let Some(target) = self.root.pointer(pointer) else { return refuse("and there is nothing") };
        if self.followed.contains(&reference) {
            return refuse("which leads to itself");
        }
        self.followed.push(reference);
        self.visit(target, depth + 1)?;
        self.followed.pop();
        Ok(())
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(100)]
}
