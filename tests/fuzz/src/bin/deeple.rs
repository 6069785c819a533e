//! Deeple: any bytes.
#![no_main]

fuzz::target!(deeple::Deeple);
