//! The tokens of Rust code: without comments and without what stands in strings.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};

/// A name, a sign or a bracket, and its line. Literals are left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: usize,
}

/// The tokens in their order; none of what is no Rust, which the compiler finds.
pub(super) fn of(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    if let Ok(stream) = text.parse() {
        add(stream, &mut tokens);
    }
    tokens
}

fn add(stream: TokenStream, tokens: &mut Vec<Token>) {
    let token = |text: &str, span: Span| Token { text: text.to_owned(), line: span.start().line };
    for tree in stream {
        match tree {
            TokenTree::Ident(ident) => {
                tokens.push(token(ident.to_string().trim_start_matches("r#"), ident.span()));
            }
            TokenTree::Punct(punct) => tokens.push(token(&punct.as_char().to_string(), punct.span())),
            TokenTree::Literal(_) => {}
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                tokens.push(token(open, group.span_open()));
                add(group.stream(), tokens);
                tokens.push(token(close, group.span_close()));
            }
        }
    }
}

/// The names in the attributes of the code, with what stands in their brackets.
pub(super) fn in_attributes(tokens: &[Token]) -> impl Iterator<Item = &Token> {
    let (mut depth, mut before) = (0_usize, "");
    tokens.iter().filter(move |token| {
        let begins = depth == 0 && token.text == "[" && ["#", "!"].contains(&before);
        if begins || depth > 0 && token.text == "[" {
            depth += 1;
        } else if depth > 0 && token.text == "]" {
            depth -= 1;
        }
        before = &token.text;
        depth > 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts<'a>(tokens: impl Iterator<Item = &'a Token>) -> Vec<&'a str> {
        tokens.map(|token| token.text.as_str()).collect()
    }

    #[test]
    fn comments_and_strings_have_no_tokens() {
        let tokens = of("// a\n/* b */ fn r#use() {\n  f(\"c\") }");
        assert_eq!(texts(tokens.iter()), ["fn", "use", "(", ")", "{", "f", "(", ")", "}"]);
        assert_eq!((tokens[1].line, tokens[5].line), (2, 3));
        assert!(of("fn {").is_empty());
    }

    #[test]
    fn attributes_end_where_their_bracket_does() {
        let tokens = of("#[cfg_attr(all(), ignore)] fn f() { [g] } #![h[i]]");
        let names: Vec<_> = texts(in_attributes(&tokens))
            .into_iter()
            .filter(|text| text.len() > 1 || *text == "h" || *text == "i")
            .collect();
        assert_eq!(names, ["cfg_attr", "all", "ignore", "h", "i"]);
    }
}
