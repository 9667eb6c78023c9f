//! The grammar.

use std::fmt;

/// How deep an expression may be nested, and how many steps it may have: reading one recurses, and so does
/// evaluating it.
const DEPTH_MAX: usize = 60;
const STEPS_MAX: usize = 5_000;
/// Bytes of an expression.
const BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Macro {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}

#[derive(Debug, Clone)]
pub(super) enum Expr {
    Literal(Literal),
    Ident(String),
    Select { of: Box<Expr>, field: String, optional: bool },
    Has { of: Box<Expr>, field: String },
    Index { of: Box<Expr>, key: Box<Expr>, optional: bool },
    Call { name: String, target: Option<Box<Expr>>, arguments: Vec<Expr> },
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    If(Box<Expr>, Box<Expr>, Box<Expr>),
    Each { kind: Macro, of: Box<Expr>, name: String, filter: Option<Box<Expr>>, body: Box<Expr> },
}

impl Expr {
    pub(super) fn children(&self) -> Vec<&Expr> {
        match self {
            Self::Literal(_) | Self::Ident(_) => Vec::new(),
            Self::Select { of, .. } | Self::Has { of, .. } => vec![of],
            Self::Index { of, key, .. } => vec![of, key],
            Self::Call { target, arguments, .. } => {
                target.iter().map(|target| &**target).chain(arguments).collect()
            }
            Self::List(all) | Self::And(all) | Self::Or(all) => all.iter().collect(),
            Self::Map(all) => all.iter().flat_map(|(key, value)| [key, value]).collect(),
            Self::Not(of) | Self::Negate(of) => vec![of],
            Self::Binary(_, a, b) => vec![a, b],
            Self::If(a, b, c) => vec![a, b, c],
            Self::Each { of, filter, body, .. } => {
                let filter = filter.iter().map(|filter| &**filter);
                [&**of].into_iter().chain(filter).chain([&**body]).collect()
            }
        }
    }

    pub(super) fn uses(&self, name: &str) -> bool {
        let own = matches!(self, Self::Ident(ident) if ident == name);
        own || self.children().into_iter().any(|child| child.uses(name))
    }

    fn depth(&self) -> usize {
        1 + self.children().into_iter().map(Self::depth).max().unwrap_or_default()
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Literal(Literal),
    Ident(String),
    Sign(&'static str),
    End,
}

const SIGNS: &[&str] = &[
    "==", "!=", "<=", ">=", "&&", "||", ".?", "[?", "<", ">", "+", "-", "*", "/", "%", "!", "?",
    ":", ".", ",", "(", ")", "[", "]", "{", "}",
];

pub(super) fn parse(text: &str) -> Result<Expr, String> {
    if text.len() > BYTES_MAX {
        return Err(format!("the expression has more than {BYTES_MAX} bytes"));
    }
    let tokens = tokens(text)?;
    if tokens.len() > STEPS_MAX {
        return Err(format!("the expression has more than {STEPS_MAX} words"));
    }
    let mut parser = Parser { text, tokens, at: 0, depth: 0 };
    let expr = parser.expression()?;
    match parser.peek() {
        // What is evaluated recurses once more for each step of a chain.
        Token::End if expr.depth() <= 4 * DEPTH_MAX => Ok(expr),
        Token::End => Err("the expression is nested too deep".to_owned()),
        _ => Err(parser.unexpected()),
    }
}

fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("{line}:{column}")
}

/// Each with the byte where it begins.
fn tokens(text: &str) -> Result<Vec<(Token, usize)>, String> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let Some(c) = rest.chars().next() else { break };
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let here = at;
        let wrong = |why: &str| format!("{}: {why}", place(text, here));
        let text_at = text_prefix(rest);
        let (token, length) = if let Some((raw, bytes, prefix)) = text_at {
            let quoted = rest.get(prefix..).unwrap_or_default();
            let (found, length) = quoted_text(quoted, raw, bytes).map_err(wrong)?;
            (Token::Literal(found), prefix + length)
        } else if c.is_ascii_digit()
            || (c == '.' && rest.chars().nth(1).is_some_and(|c| c.is_ascii_digit()))
        {
            let (found, length) = number(rest).ok_or_else(|| wrong("invalid number"))?;
            (Token::Literal(found), length)
        } else if c.is_alphabetic() || c == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let word = rest.get(..end).unwrap_or_default();
            let token = match word {
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "null" => Token::Literal(Literal::Null),
                "in" => Token::Sign("in"),
                word => Token::Ident(word.to_owned()),
            };
            (token, end)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            return Err(wrong(&format!("token recognition error at: '{c}'")));
        };
        at += length;
        tokens.push((token, here));
    }
    tokens.push((Token::End, text.len()));
    Ok(tokens)
}

/// Whether a text begins here: raw, of bytes, and how long what stands before the quotes is.
fn text_prefix(rest: &str) -> Option<(bool, bool, usize)> {
    let mut letters = rest.char_indices();
    let (mut raw, mut bytes) = (false, false);
    for (at, c) in letters.by_ref().take(3) {
        match c {
            '"' | '\'' => return Some((raw, bytes, at)),
            'r' | 'R' if !raw => raw = true,
            'b' | 'B' if !bytes => bytes = true,
            _ => return None,
        }
    }
    None
}

fn quoted_text(rest: &str, raw: bool, bytes: bool) -> Result<(Literal, usize), &'static str> {
    let quote = rest.chars().next().ok_or("a text is missing")?;
    let triple: String = [quote; 3].iter().collect();
    let end: &str = if rest.starts_with(&triple) { &triple } else { rest.get(..1).unwrap_or("\"") };
    let mut out: Vec<u8> = Vec::new();
    let mut at = end.len();
    let push = |out: &mut Vec<u8>, c: char| {
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    };
    loop {
        let left = rest.get(at..).unwrap_or_default();
        if left.starts_with(end) {
            at += end.len();
            break;
        }
        let Some(c) = left.chars().next() else { return Err("unterminated text") };
        at += c.len_utf8();
        if c != '\\' || raw {
            if c == '\n' && end.len() == 1 {
                return Err("unterminated text");
            }
            push(&mut out, c);
            continue;
        }
        let Some(escaped) = rest.get(at..).and_then(|left| left.chars().next()) else {
            return Err("unterminated text");
        };
        at += escaped.len_utf8();
        let mut code = |digits: usize, radix: u32| {
            let found = rest.get(at..at + digits).and_then(|d| u32::from_str_radix(d, radix).ok());
            at += digits;
            found.ok_or("invalid escape sequence")
        };
        let code = match escaped {
            'n' => 10,
            't' => 9,
            'r' => 13,
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'v' => 11,
            '\\' | '\'' | '"' | '`' | '?' => u32::from(escaped),
            'x' | 'X' => code(2, 16)?,
            'u' => code(4, 16)?,
            'U' => code(8, 16)?,
            '0'..='3' => {
                at -= 1;
                let found = rest.get(at..at + 3).and_then(|d| u32::from_str_radix(d, 8).ok());
                at += 3;
                found.ok_or("invalid escape sequence")?
            }
            _ => return Err("invalid escape sequence"),
        };
        match (bytes, u8::try_from(code)) {
            (true, Ok(byte)) => out.push(byte),
            _ => push(&mut out, char::from_u32(code).ok_or("invalid escape sequence")?),
        }
    }
    let literal = if bytes {
        Literal::Bytes(out)
    } else {
        Literal::Text(String::from_utf8(out).map_err(|_| "the text is not UTF-8")?)
    };
    Ok((literal, at))
}

fn number(rest: &str) -> Option<(Literal, usize)> {
    if let Some(hex) = rest.strip_prefix("0x") {
        let end = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        let digits = hex.get(..end)?;
        if hex.get(end..).is_some_and(|left| left.starts_with(['u', 'U'])) {
            return Some((Literal::Uint(u64::from_str_radix(digits, 16).ok()?), end + 3));
        }
        return Some((Literal::Int(i64::from_str_radix(digits, 16).ok()?), end + 2));
    }
    let digits = |from: usize| {
        let left = rest.get(from..).unwrap_or_default();
        from + left.find(|c: char| !c.is_ascii_digit()).unwrap_or(left.len())
    };
    let mut end = digits(0);
    let mut is_double = false;
    let starts = |at: usize, wanted: &[char]| rest.get(at..).is_some_and(|l| l.starts_with(wanted));
    if starts(end, &['.']) && digits(end + 1) > end + 1 {
        is_double = true;
        end = digits(end + 1);
    }
    if starts(end, &['e', 'E']) {
        let sign = usize::from(starts(end + 1, &['+', '-']));
        let after = digits(end + 1 + sign);
        if after > end + 1 + sign {
            is_double = true;
            end = after;
        }
    }
    let text = rest.get(..end)?;
    if is_double {
        return Some((Literal::Double(text.parse().ok()?), end));
    }
    if starts(end, &['u', 'U']) {
        return Some((Literal::Uint(text.parse().ok()?), end + 1));
    }
    // The least integer is written with its sign, which is an operator: kept here as what negates to it.
    let value = text
        .parse::<i64>()
        .or_else(|e| if text == "9223372036854775808" { Ok(i64::MIN) } else { Err(e) });
    Some((Literal::Int(value.ok()?), end))
}

struct Parser<'t> {
    text: &'t str,
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
}

type Parsed = Result<Expr, String>;

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    fn unexpected(&self) -> String {
        let (token, at) =
            self.tokens.get(self.at).map_or((&Token::End, 0), |(token, at)| (token, *at));
        let place = place(self.text, at);
        let found = match token {
            Token::End => "<EOF>".to_owned(),
            Token::Sign(sign) => (*sign).to_owned(),
            Token::Ident(name) => name.clone(),
            Token::Literal(literal) => format!("{literal:?}"),
        };
        format!("{place}: Syntax error: unexpected '{found}'")
    }

    fn take(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(sign) if *sign == wanted);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: &str) -> Result<(), String> {
        if self.take(wanted) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn deeper<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<T, String> {
        if self.depth == DEPTH_MAX {
            return Err("the expression is nested too deep".to_owned());
        }
        self.depth += 1;
        let found = inner(self);
        self.depth -= 1;
        found
    }

    fn expression(&mut self) -> Parsed {
        self.deeper(|parser| {
            let condition = parser.or()?;
            if !parser.take("?") {
                return Ok(condition);
            }
            let yes = parser.or()?;
            parser.expect(":")?;
            let no = parser.expression()?;
            Ok(Expr::If(Box::new(condition), Box::new(yes), Box::new(no)))
        })
    }

    fn chain(
        &mut self,
        sign: &str,
        next: fn(&mut Self) -> Parsed,
        made: fn(Vec<Expr>) -> Expr,
    ) -> Parsed {
        let first = next(self)?;
        let mut all = vec![first];
        while self.take(sign) {
            all.push(next(self)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { made(all) })
    }

    fn or(&mut self) -> Parsed {
        self.chain("||", Self::and, Expr::Or)
    }

    fn and(&mut self) -> Parsed {
        self.chain("&&", Self::relation, Expr::And)
    }

    fn binary(
        &mut self,
        next: fn(&mut Self) -> Parsed,
        operators: &[(&'static str, Operator)],
    ) -> Parsed {
        let mut left = next(self)?;
        loop {
            let found = operators.iter().find(|(sign, _)| self.take(sign)).map(|(_, op)| *op);
            let Some(operator) = found else { return Ok(left) };
            left = Expr::Binary(operator, Box::new(left), Box::new(next(self)?));
        }
    }

    fn relation(&mut self) -> Parsed {
        self.binary(
            Self::sum,
            &[
                ("==", Operator::Equal),
                ("!=", Operator::NotEqual),
                ("<=", Operator::LessOrEqual),
                (">=", Operator::GreaterOrEqual),
                ("<", Operator::Less),
                (">", Operator::Greater),
                ("in", Operator::In),
            ],
        )
    }

    fn sum(&mut self) -> Parsed {
        self.binary(Self::product, &[("+", Operator::Add), ("-", Operator::Subtract)])
    }

    fn product(&mut self) -> Parsed {
        let all = [("*", Operator::Multiply), ("/", Operator::Divide), ("%", Operator::Remainder)];
        self.binary(Self::unary, &all)
    }

    fn unary(&mut self) -> Parsed {
        if self.take("!") {
            return self.deeper(|parser| Ok(Expr::Not(Box::new(parser.unary()?))));
        }
        if self.take("-") {
            return self.deeper(|parser| Ok(Expr::Negate(Box::new(parser.unary()?))));
        }
        self.member()
    }

    fn member(&mut self) -> Parsed {
        let mut of = self.primary()?;
        loop {
            if self.take(".?") {
                let field = unescaped(&self.name()?);
                of = Expr::Select { of: Box::new(of), field, optional: true };
            } else if self.take(".") {
                let name = self.name()?;
                if self.take("(") {
                    let arguments = self.list(")")?;
                    of = call(Some(of), name, arguments)?;
                } else {
                    of =
                        Expr::Select { of: Box::new(of), field: unescaped(&name), optional: false };
                }
            } else if self.take("[") || matches!(self.peek(), Token::Sign("[?")) {
                let optional = self.take("[?");
                let key = self.expression()?;
                self.expect("]")?;
                of = Expr::Index { of: Box::new(of), key: Box::new(key), optional };
            } else {
                return Ok(of);
            }
        }
    }

    fn name(&mut self) -> Result<String, String> {
        let Token::Ident(name) = self.peek().clone() else { return Err(self.unexpected()) };
        self.at += 1;
        Ok(name)
    }

    fn list(&mut self, end: &str) -> Result<Vec<Expr>, String> {
        let mut all = Vec::new();
        while !self.take(end) {
            all.push(self.expression()?);
            if !self.take(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(all)
    }

    fn primary(&mut self) -> Parsed {
        match self.peek().clone() {
            Token::Literal(literal) => {
                self.at += 1;
                Ok(Expr::Literal(literal))
            }
            Token::Ident(name) => {
                self.at += 1;
                if self.take("(") {
                    let arguments = self.list(")")?;
                    return call(None, name, arguments);
                }
                Ok(Expr::Ident(name))
            }
            Token::Sign("(") => {
                self.at += 1;
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("[") => {
                self.at += 1;
                self.list("]").map(Expr::List)
            }
            Token::Sign("{") => {
                self.at += 1;
                let mut all = Vec::new();
                while !self.take("}") {
                    let key = self.expression()?;
                    self.expect(":")?;
                    all.push((key, self.expression()?));
                    if !self.take(",") {
                        self.expect("}")?;
                        break;
                    }
                }
                Ok(Expr::Map(all))
            }
            Token::Sign(_) | Token::End => Err(self.unexpected()),
        }
    }
}

/// Names in rules that would not be names otherwise.
fn unescaped(name: &str) -> String {
    const WORDS: &[&str] = &[
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    let inner = name.strip_prefix("__").and_then(|name| name.strip_suffix("__"));
    if let Some(word) = inner.filter(|word| WORDS.contains(word)) {
        return word.to_owned();
    }
    let parts = [("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];
    let name = parts.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to));
    name.replace("__underscores__", "__")
}

/// A call, or what looks like one.
fn call(target: Option<Expr>, name: String, arguments: Vec<Expr>) -> Parsed {
    let kind = match name.as_str() {
        "all" => Some(Macro::All),
        "exists" => Some(Macro::Exists),
        "exists_one" | "existsOne" => Some(Macro::ExistsOne),
        "filter" => Some(Macro::Filter),
        "map" => Some(Macro::Map),
        _ => None,
    };
    match (target, kind) {
        (None, _) if name == "has" => {
            let mut arguments = arguments.into_iter();
            match (arguments.next(), arguments.next()) {
                (Some(Expr::Select { of, field, .. }), None) => Ok(Expr::Has { of, field }),
                _ => Err("invalid argument to has() macro".to_owned()),
            }
        }
        (Some(of), Some(kind)) => {
            let mut arguments = arguments.into_iter();
            let Some(Expr::Ident(var)) = arguments.next() else {
                return Err(format!("{name}: argument must be a simple name"));
            };
            let (filter, body) = match (arguments.next(), arguments.next(), arguments.next()) {
                (Some(body), None, None) => (None, body),
                (Some(filter), Some(body), None) if kind == Macro::Map => {
                    (Some(Box::new(filter)), body)
                }
                _ => return Err(format!("found no matching overload for '{name}'")),
            };
            Ok(Expr::Each { kind, of: Box::new(of), name: var, filter, body: Box::new(body) })
        }
        (target, _) => Ok(Expr::Call { name, target: target.map(Box::new), arguments }),
    }
}
