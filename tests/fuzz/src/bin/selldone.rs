//! Selldone: any bytes.
#![no_main]

fuzz::target!(selldone::Selldone);
