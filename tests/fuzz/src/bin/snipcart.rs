//! Snipcart: any bytes.
#![no_main]

fuzz::target!(snipcart::Snipcart);
