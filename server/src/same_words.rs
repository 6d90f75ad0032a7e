//! Stored words and words of the wire that are the same.

/// Words of the store that are the same words on the wire, in one direction or both.
macro_rules! same_words {
    ($($From:path => $To:path: $($Variant:ident),+;)+) => {
        $(
            impl From<$From> for $To {
                fn from(word: $From) -> Self {
                    type From = $From;
                    match word {
                        $(From::$Variant => Self::$Variant,)+
                        From::Other(word) => Self::Other(word),
                    }
                }
            }
        )+
    };
}

pub(crate) use same_words;
