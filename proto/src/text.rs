//! Text of one side that the other prints: no control characters, no invisible change of direction, bounded.

/// Longest name or message that is taken over.
pub const LONGEST: usize = 2048;

/// Whether a character could move the cursor, hide text or turn its direction round.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Makes a text safe to print on one line: line breaks become spaces, other harmful characters `?`, and what is longer
/// than `longest` bytes is cut.
pub fn clean(text: &mut String, longest: usize) {
    let cut = text.len() > longest;
    if !cut && !text.chars().any(is_harmful) {
        return;
    }
    let safe = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if is_harmful(c) => '?',
        c => c,
    };
    let mut cleaned = String::with_capacity(text.len().min(longest));
    for c in text.chars().map(safe) {
        if cleaned.len() + c.len_utf8() > longest {
            break;
        }
        cleaned.push(c);
    }
    *text = cleaned;
}

/// A cleaned copy, of any length.
#[must_use]
pub fn cleaned(text: &str) -> String {
    let mut text = text.to_owned();
    clean(&mut text, usize::MAX);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(cleaned("a\u{1b}[2Jb\nc\u{202e}d\u{9b}"), "a?[2Jb c?d?");
        assert_eq!(cleaned("Zürich – ok"), "Zürich – ok");
    }

    #[test]
    fn what_is_too_long_is_cut_at_a_character() {
        let mut text = "ü".repeat(10);
        clean(&mut text, 5);
        assert_eq!(text, "üü");
    }
}
