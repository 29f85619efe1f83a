//! The samples, called as a visitor would.
