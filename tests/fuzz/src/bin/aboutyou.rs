//! ABOUT YOU: any bytes.
#![no_main]

fuzz::target!(aboutyou::AboutYou);
