//! Strings, numbers and durations: how far they reach, and whether their escapes are sound.

use super::{Kind, Lexer, Step, is_alphanumeric};
use crate::format::text::quote;

impl Lexer<'_> {
    pub(super) fn raw_string(&mut self) -> Step {
        match self.input[self.pos..].find('`') {
            Some(len) => {
                self.pos += len + 1;
                self.emit(Kind::String);
                Ok(())
            }
            None => Err("unterminated raw string".into()),
        }
    }

    pub(super) fn string(&mut self, quote: char) -> Step {
        loop {
            match self.next() {
                None | Some('\n') => return Err("unterminated quoted string".into()),
                Some('\\') => self.escape(quote)?,
                Some(c) if c == quote => break,
                Some(_) => {}
            }
        }
        self.emit(Kind::String);
        Ok(())
    }

    fn escape(&mut self, quote: char) -> Step {
        let unterminated = || "escape sequence not terminated".to_owned();
        let first = self.next().ok_or_else(unterminated)?;
        let (digits, base, max, mut next) = match first {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => return Ok(()),
            c if c == quote => return Ok(()),
            '0'..='7' => (3, 8, 255, Some(first)),
            'x' => (2, 16, 255, self.next()),
            'u' => (4, 16, 0x10_ffff, self.next()),
            'U' => (8, 16, 0x10_ffff, self.next()),
            c => return Err(format!("unknown escape sequence {}", unicode(c))),
        };
        let mut value = 0u64;
        for left in (0..digits).rev() {
            let c = next.ok_or_else(unterminated)?;
            let digit = c
                .to_digit(base)
                .ok_or_else(|| format!("illegal character {} in escape sequence", unicode(c)))?;
            value = value * u64::from(base) + u64::from(digit);
            if left > 0 {
                next = self.next();
            }
        }
        if value > max || (0xd800..0xe000).contains(&value) {
            return Err("escape sequence is an invalid Unicode code point".into());
        }
        Ok(())
    }

    pub(super) fn number_or_duration(&mut self) -> Step {
        self.pos = self.start;
        if self.scan_number() {
            self.emit(Kind::Number);
            return Ok(());
        }
        if self.accept_rest_of_duration() {
            self.emit(Kind::Duration);
            return Ok(());
        }
        Err(format!("bad number or duration syntax: {}", quote(&self.input[self.start..self.pos])))
    }

    /// Takes what may be a number; whether it is one is found when it is converted.
    fn scan_number(&mut self) -> bool {
        let mut digits = "0123456789";
        if self.accept("0") && self.accept("xX") {
            self.accept("_");
            digits = "0123456789abcdefABCDEF";
        }
        let hex = digits.len() > 10;
        self.accept(".");
        self.accept(digits);
        let (mut dot, mut exponent) = (false, false);
        while self.peek_is(|c| digits.contains(c) || "._eE".contains(c)) {
            if (dot && self.peek_is(|c| c == '.')) || (exponent && self.peek_is(|c| c == 'e' || c == 'E')) {
                self.pos += 1;
                return false;
            }
            if self.accept(".") {
                dot = true;
                if self.accept("_.") || hex {
                    return false;
                }
            } else if !hex && self.accept("eE") {
                exponent = true;
                self.accept("+-");
                if self.accept("._eE") || self.peek().is_none() {
                    return false;
                }
            } else if self.accept("_") {
                if self.accept("._eE") || self.peek().is_none() {
                    return false;
                }
            } else {
                self.take_while(|c| digits.contains(c));
            }
        }
        self.pos > self.start && !self.peek_is(is_alphanumeric)
    }

    fn accept_rest_of_duration(&mut self) -> bool {
        if !self.accept("smhdwy") {
            return false;
        }
        self.accept("s");
        while self.peek_is(|c| c.is_ascii_digit()) {
            self.take_while(|c| c.is_ascii_digit());
            if !self.accept("smhdw") {
                return false;
            }
            self.accept("s");
        }
        if self.peek_is(is_alphanumeric) {
            self.pos += 1;
            return false;
        }
        true
    }
}

fn unicode(c: char) -> String {
    format!("U+{:04X} '{c}'", c as u32)
}
