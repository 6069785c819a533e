//! The table of `template.yaml`: the local table has the same keys and indexes.

use std::path::Path;

use yaml_rust2::Yaml;

use crate::Error;
use crate::project::template;

/// A table, as CloudFormation describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The keys of the table.
    pub keys: Vec<Key>,
    /// The attributes that are keys, of the table or of an index, each with its type, such as `S`.
    pub attributes: Vec<Attribute>,
    /// The global secondary indexes.
    pub indexes: Vec<Index>,
}

/// A key of a table or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The name of the attribute.
    pub attribute: String,
    /// `HASH` or `RANGE`.
    pub kind: String,
}

/// The type of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// The name of the attribute.
    pub name: String,
    /// The type, such as `S` for a string.
    pub kind: String,
}

/// A global secondary index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The name of the index.
    pub name: String,
    /// The keys of the index.
    pub keys: Vec<Key>,
    /// What the index holds in addition to the keys, such as `KEYS_ONLY`.
    pub projection: String,
}

/// Reads the table from the template at `path`.
pub fn read(path: &Path) -> Result<Table, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::Template(format!("{} cannot be read: {source}", path.display())))?;
    parse(&text).map_err(|fault| Error::Template(format!("{}: {fault}", path.display())))
}

fn parse(text: &str) -> Result<Table, String> {
    let template = template::load(text)?;
    let resources = template["Resources"].as_hash();
    let mut resources = resources.into_iter().flatten().map(|(_, resource)| resource);
    let table = resources.find(|resource| resource["Type"].as_str() == Some("AWS::DynamoDB::Table"));
    let properties = &table.ok_or("the template has no AWS::DynamoDB::Table")?["Properties"];
    let attributes = list(&properties["AttributeDefinitions"]).map(|attribute| {
        Ok(Attribute {
            name: text_of(attribute, "AttributeName")?,
            kind: text_of(attribute, "AttributeType")?,
        })
    });
    let indexes = list(&properties["GlobalSecondaryIndexes"]).map(|index| {
        Ok(Index {
            name: text_of(index, "IndexName")?,
            keys: keys(index)?,
            projection: text_of(&index["Projection"], "ProjectionType")?,
        })
    });
    Ok(Table {
        keys: keys(properties)?,
        attributes: attributes.collect::<Result<_, String>>()?,
        indexes: indexes.collect::<Result<_, String>>()?,
    })
}

fn keys(of: &Yaml) -> Result<Vec<Key>, String> {
    let keys = list(&of["KeySchema"]).map(|key| {
        Ok(Key {
            attribute: text_of(key, "AttributeName")?,
            kind: text_of(key, "KeyType")?,
        })
    });
    keys.collect()
}

fn list(value: &Yaml) -> impl Iterator<Item = &Yaml> {
    value.as_vec().into_iter().flatten()
}

fn text_of(value: &Yaml, name: &str) -> Result<String, String> {
    let text = value[name].as_str();
    text.map(str::to_owned)
        .ok_or_else(|| format!("the table has an entry without {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_with_its_keys_and_indexes() {
        let table = parse(
            r"
Resources:
  Topic: {Type: 'AWS::SNS::Topic'}
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      KeySchema: [{AttributeName: pk, KeyType: HASH}]
      AttributeDefinitions: [{AttributeName: pk, AttributeType: S}, {AttributeName: hour, AttributeType: S}]
      GlobalSecondaryIndexes:
        - {IndexName: by_hour, KeySchema: [{AttributeName: hour, KeyType: HASH}], Projection: {ProjectionType: KEYS_ONLY}}
",
        )
        .unwrap();
        let key = |attribute: &str| Key {
            attribute: attribute.to_owned(),
            kind: "HASH".to_owned(),
        };
        assert_eq!(table.keys, [key("pk")]);
        assert_eq!(table.attributes[1].name, "hour");
        assert_eq!(
            table.indexes,
            [Index {
                name: "by_hour".to_owned(),
                keys: vec![key("hour")],
                projection: "KEYS_ONLY".to_owned(),
            }]
        );
    }

    #[test]
    fn a_template_without_a_complete_table_is_an_error() {
        for (template, fault) in [
            ("Resources: {}", "the template has no AWS::DynamoDB::Table"),
            (
                "Resources: {T: {Type: 'AWS::DynamoDB::Table', Properties: {KeySchema: [{AttributeName: pk}]}}}",
                "the table has an entry without KeyType",
            ),
        ] {
            assert_eq!(parse(template).unwrap_err(), fault);
        }
    }
}
