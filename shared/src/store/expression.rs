//! Builds the expressions of conditional writes.
//!
//! Every attribute gets a placeholder, because many names are reserved words in DynamoDB, and every value gets a
//! number.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, Put, Update};
use jiff::Timestamp;

use super::event_items::sortable;
use super::{Item, State};

/// A value that an attribute can have.
pub(super) trait ToAttribute {
    /// The value as DynamoDB stores it.
    fn to_attribute(&self) -> AttributeValue;
}

impl ToAttribute for str {
    fn to_attribute(&self) -> AttributeValue {
        AttributeValue::S(self.to_owned())
    }
}

impl ToAttribute for State {
    fn to_attribute(&self) -> AttributeValue {
        self.as_str().to_attribute()
    }
}

impl ToAttribute for Timestamp {
    fn to_attribute(&self) -> AttributeValue {
        AttributeValue::S(sortable(*self))
    }
}

impl ToAttribute for u32 {
    fn to_attribute(&self) -> AttributeValue {
        AttributeValue::N(self.to_string())
    }
}

impl ToAttribute for bool {
    fn to_attribute(&self) -> AttributeValue {
        AttributeValue::Bool(*self)
    }
}

impl ToAttribute for AttributeValue {
    fn to_attribute(&self) -> AttributeValue {
        self.clone()
    }
}

/// A condition on the attributes of an item.
#[derive(Clone)]
pub(super) enum Condition {
    Compare(&'static str, &'static str, AttributeValue),
    HasSize(&'static str, usize),
    HasFewer(&'static str, usize),
    Contains(&'static str, AttributeValue),
    Exists(&'static str),
    Absent(&'static str),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
}

impl Condition {
    /// The attribute has this value.
    pub(super) fn equals(attribute: &'static str, value: &(impl ToAttribute + ?Sized)) -> Self {
        Self::Compare(attribute, "=", value.to_attribute())
    }

    /// The attribute is there and has a value up to this one.
    pub(super) fn at_most(attribute: &'static str, value: &(impl ToAttribute + ?Sized)) -> Self {
        Self::Compare(attribute, "<=", value.to_attribute())
    }

    /// The set contains this element.
    pub(super) fn contains(attribute: &'static str, element: &(impl ToAttribute + ?Sized)) -> Self {
        Self::Contains(attribute, element.to_attribute())
    }

    /// The event is in this state.
    pub(super) fn in_state(state: State) -> Self {
        Self::equals("state", &state)
    }

    /// The event is not in this state.
    pub(super) fn not_in_state(state: State) -> Self {
        Self::Compare("state", "<>", state.to_attribute())
    }

    /// The item exists.
    pub(super) fn item_exists() -> Self {
        Self::Exists("pk")
    }

    /// The item does not exist.
    pub(super) fn no_item() -> Self {
        Self::Absent("pk")
    }

    /// There is no event: no item, or a tombstone that has expired at `now` and that DynamoDB has not deleted yet.
    pub(super) fn no_event(now: Timestamp) -> Self {
        let now = AttributeValue::N(now.as_second().to_string());
        Self::no_item().or(Self::in_state(State::Erased).and(Self::at_most("expires_at", &now)))
    }

    /// Both conditions hold.
    pub(super) fn and(self, other: Self) -> Self {
        Self::And(Box::new(self), Box::new(other))
    }

    /// At least one of the two conditions holds.
    pub(super) fn or(self, other: Self) -> Self {
        Self::Or(Box::new(self), Box::new(other))
    }

    fn write(&self, into: &mut Placeholders) -> String {
        match self {
            Self::Compare(attribute, operator, value) => {
                format!("{} {operator} {}", into.name(attribute), into.value(value))
            }
            Self::HasSize(attribute, size) => {
                let size = AttributeValue::N(size.to_string());
                format!("size({}) = {}", into.name(attribute), into.value(&size))
            }
            Self::HasFewer(attribute, size) => {
                let size = AttributeValue::N(size.to_string());
                format!("size({}) < {}", into.name(attribute), into.value(&size))
            }
            Self::Contains(attribute, element) => {
                format!("contains({}, {})", into.name(attribute), into.value(element))
            }
            Self::Exists(attribute) => format!("attribute_exists({})", into.name(attribute)),
            Self::Absent(attribute) => format!("attribute_not_exists({})", into.name(attribute)),
            Self::And(one, other) => format!("{} AND {}", one.operand(into), other.operand(into)),
            Self::Or(one, other) => format!("{} OR {}", one.operand(into), other.operand(into)),
        }
    }

    /// The condition as a part of another one.
    fn operand(&self, into: &mut Placeholders) -> String {
        let written = self.write(into);
        match self {
            Self::And(..) | Self::Or(..) => format!("({written})"),
            _ => written,
        }
    }

    /// The condition's expression, with its names and values.
    pub(super) fn to_expression(&self) -> Expression {
        let mut placeholders = Placeholders::default();
        let condition = self.write(&mut placeholders);
        placeholders.into_expression(String::new(), Some(condition))
    }

    /// The put of `item` into `table`, as a part of a transaction.
    pub(super) fn transacted_put(&self, table: &str, item: Item) -> aws_sdk_dynamodb::types::builders::PutBuilder {
        let Expression {
            condition,
            names,
            values,
            ..
        } = self.to_expression();
        Put::builder()
            .table_name(table)
            .set_item(Some(item))
            .set_condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
    }
}

/// A change of an item, and the condition under which it is made.
#[derive(Clone, Default)]
pub(super) struct Change {
    set: Vec<(&'static str, AttributeValue)>,
    set_if_absent: Vec<(&'static str, AttributeValue)>,
    add: Vec<(&'static str, AttributeValue)>,
    remove: Vec<&'static str>,
    condition: Option<Condition>,
}

impl Change {
    /// Moves an event to `state`.
    pub(super) fn move_to(state: State) -> Self {
        Self::default().set("state", &state)
    }

    /// Gives an attribute a value.
    pub(super) fn set(mut self, attribute: &'static str, value: &(impl ToAttribute + ?Sized)) -> Self {
        self.set.push((attribute, value.to_attribute()));
        self
    }

    /// Gives an attribute a value, unless it has one.
    pub(super) fn set_if_absent(mut self, attribute: &'static str, value: &(impl ToAttribute + ?Sized)) -> Self {
        self.set_if_absent.push((attribute, value.to_attribute()));
        self
    }

    /// Adds to a number or to a set.
    pub(super) fn add(mut self, attribute: &'static str, value: &(impl ToAttribute + ?Sized)) -> Self {
        self.add.push((attribute, value.to_attribute()));
        self
    }

    /// Removes attributes.
    pub(super) fn remove(mut self, attributes: &[&'static str]) -> Self {
        self.remove.extend_from_slice(attributes);
        self
    }

    /// Makes the change only if `condition` holds.
    pub(super) fn only_if(self, condition: Condition) -> Self {
        Self {
            condition: Some(condition),
            ..self
        }
    }

    /// The change's expressions, with their names and values.
    pub(super) fn to_expression(&self) -> Expression {
        let mut placeholders = Placeholders::default();
        let set = self.set.iter().map(|(attribute, value)| {
            let (name, value) = (placeholders.name(attribute), placeholders.value(value));
            format!("{name} = {value}")
        });
        let mut set: Vec<_> = set.collect();
        set.extend(self.set_if_absent.iter().map(|(attribute, value)| {
            let (name, value) = (placeholders.name(attribute), placeholders.value(value));
            format!("{name} = if_not_exists({name}, {value})")
        }));
        let add = self.add.iter().map(|(attribute, value)| {
            let (name, value) = (placeholders.name(attribute), placeholders.value(value));
            format!("{name} {value}")
        });
        let add: Vec<_> = add.collect();
        let remove: Vec<_> = self
            .remove
            .iter()
            .map(|attribute| placeholders.name(attribute))
            .collect();
        let clauses = [("SET", set), ("ADD", add), ("REMOVE", remove)];
        let clauses = clauses.into_iter().filter(|(_, parts)| !parts.is_empty());
        let clauses: Vec<_> = clauses
            .map(|(verb, parts)| format!("{verb} {}", parts.join(", ")))
            .collect();
        let condition = self
            .condition
            .as_ref()
            .map(|condition| condition.write(&mut placeholders));
        placeholders.into_expression(clauses.join(" "), condition)
    }

    /// The change of the item with this key, as a part of a transaction.
    pub(super) fn transacted(&self, table: &str, key: Item) -> Update {
        let Expression {
            update,
            condition,
            names,
            values,
        } = self.to_expression();
        Update::builder()
            .table_name(table)
            .set_key(Some(key))
            .update_expression(update)
            .set_condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .build()
            .expect("table, key and expression are set")
    }
}

/// Expressions as DynamoDB reads them.
pub(super) struct Expression {
    pub(super) update: String,
    pub(super) condition: Option<String>,
    pub(super) names: Option<HashMap<String, String>>,
    pub(super) values: Option<Item>,
}

#[derive(Default)]
struct Placeholders {
    names: HashMap<String, String>,
    values: Item,
}

impl Placeholders {
    fn name(&mut self, attribute: &str) -> String {
        let placeholder = format!("#{attribute}");
        self.names.insert(placeholder.clone(), attribute.to_owned());
        placeholder
    }

    fn value(&mut self, value: &AttributeValue) -> String {
        let placeholder = format!(":{}", self.values.len());
        self.values.insert(placeholder.clone(), value.clone());
        placeholder
    }

    /// DynamoDB refuses empty maps.
    fn into_expression(self, update: String, condition: Option<String>) -> Expression {
        Expression {
            update,
            condition,
            names: (!self.names.is_empty()).then_some(self.names),
            values: (!self.values.is_empty()).then_some(self.values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_written_with_placeholders() {
        let change = Change::move_to(State::Pending)
            .set_if_absent("hour", "10")
            .add("deferrals", &1_u32)
            .remove(&["leases", "work"])
            .only_if(
                Condition::in_state(State::Failed)
                    .and(Condition::Absent("erasing").or(Condition::at_most("attempts", &3_u32))),
            );
        let expression = change.to_expression();
        assert_eq!(
            expression.update,
            "SET #state = :0, #hour = if_not_exists(#hour, :1) ADD #deferrals :2 REMOVE #leases, #work"
        );
        assert_eq!(
            expression.condition.as_deref(),
            Some("#state = :3 AND (attribute_not_exists(#erasing) OR #attempts <= :4)")
        );
        let (names, values) = (expression.names.expect("names"), expression.values.expect("values"));
        assert_eq!((names.len(), names["#work"].as_str()), (7, "work"));
        assert_eq!((values.len(), &values[":3"]), (5, &"failed".to_attribute()));
    }

    #[test]
    fn an_expression_without_values_has_none() {
        let expression = Change::default()
            .remove(&["work"])
            .only_if(Condition::item_exists())
            .to_expression();
        assert_eq!(
            (expression.update.as_str(), expression.condition.as_deref()),
            ("REMOVE #work", Some("attribute_exists(#pk)"))
        );
        assert!(expression.values.is_none());
    }
}
