//! Cartum: any bytes.
#![no_main]

fuzz::target!(cartum::Cartum);
