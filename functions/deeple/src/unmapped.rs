//! The fields of Deeple's payload that have no place in the event.

/// JSON pointers to the fields that stay in `unmapped`, each with the reason.
///
/// In a pointer, `*` matches any one name or index, and `**` at its end matches everything below. The functions use
/// only the pointers; the reasons are for readers and tests.
pub const UNMAPPED: &[(&str, &str)] = &[
    (
        "/items/*/barcode",
        "An undocumented field that is not one of the likely names of an item's fields.",
    ),
    (
        "/items/*/discountPrice",
        "The name can mean a reduced price as well as a discount.",
    ),
    (
        "/items/*/note",
        "An undocumented field that is not one of the likely names of an item's fields.",
    ),
    ("/items/*/options/**", "Choices whose shape is not documented."),
    (
        "/items/*/url",
        "An undocumented field that is not one of the likely names of an item's fields.",
    ),
    ("/items/*/weight", "A weight in a unit that is not documented."),
    (
        "/vatOptions",
        "A word that does not say whether prices include the tax.",
    ),
];
