//! The fields of Deeple's payload that have no place in the event.

/// JSON pointers to the fields that stay in `unmapped`, each with the reason. `*` in a pointer stands for any one name or
/// index, `**` at its end for all that is below.
///
/// The functions refer to the pointers at most: the reasons are for people and tests, and are not linked.
pub const UNMAPPED: &[(&str, &str)] = &[
    (
        "/items/*/barcode",
        "a field that is not documented, beside the item's likely names",
    ),
    (
        "/items/*/discountPrice",
        "a price or what is taken off it: the name says either",
    ),
    (
        "/items/*/note",
        "a field that is not documented, beside the item's likely names",
    ),
    ("/items/*/options/**", "choices of undocumented shape"),
    (
        "/items/*/url",
        "a field that is not documented, beside the item's likely names",
    ),
    ("/items/*/weight", "a weight in a unit that is not documented"),
    ("/vatOptions", "a word that does not say whether prices include the tax"),
];
