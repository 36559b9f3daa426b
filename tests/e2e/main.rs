//! What a user does: unmodified clients against the real service.
mod kills;
