//! Commands of pages, as a shell takes them.

use super::pages::lines;

/// Lines of the code blocks of a page, continued ones as one.
pub fn code(page: &str) -> Vec<String> {
    let (mut all, mut begun) = (Vec::new(), String::new());
    for (_, line) in lines(page).into_iter().filter(|(code, _)| code.is_some()) {
        match line.strip_suffix('\\') {
            Some(first) => begun.push_str(first),
            None => all.push(std::mem::take(&mut begun) + line),
        }
    }
    all
}

/// The words of the commands of a line: quotes, comments, pipes.
pub fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut all, mut words, mut word, mut quote) = (Vec::new(), Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | '\t') => words.extend(word.take()),
            (None, '|' | ';' | '&' | '(' | ')' | '>' | '<') => {
                words.extend(word.take());
                all.push(std::mem::take(&mut words));
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    all.push(words);
    all
}
