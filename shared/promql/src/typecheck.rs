//! Checks of a syntax tree after parsing: types of operands and arguments, and modifiers that do not fit.
//!
//! As in Prometheus it also settles how a binary operator matches: set operators are many-to-many, and an operator
//! with a scalar side has no matching at all.

use crate::ast::{AggregateOp, Binary, Call, Cardinality, Expr, ExprKind, Pos, ValueType, VectorSelector};
use crate::format::text::quote;
use crate::functions::Function;
use crate::parser::ParseError;

/// Checks a tree that was read from that text.
pub(crate) fn check(input: &str, expr: &mut Expr) -> Result<(), ParseError> {
    Checker { input }.expr(expr).map(|_| ())
}

struct Checker<'a> {
    input: &'a str,
}

type Checked<T = ()> = Result<T, ParseError>;

impl Checker<'_> {
    fn refuse<T>(&self, pos: Pos, message: impl Into<String>) -> Checked<T> {
        Err(ParseError::new(self.input, pos, message.into()))
    }

    /// Checks an expression, children first, and gives its type.
    fn expr(&self, expr: &mut Expr) -> Checked<ValueType> {
        let pos = expr.pos;
        match &mut expr.kind {
            ExprKind::Paren(inner) => return self.expr(inner),
            ExprKind::Unary(_, inner) => {
                let found = self.expr(inner)?;
                if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                    let message = format!(
                        "unary expression only allowed on expressions of type scalar or instant vector, got {:?}",
                        found.describe()
                    );
                    return self.refuse(pos, message);
                }
                return Ok(found);
            }
            ExprKind::Binary(binary) => return self.binary(binary, pos),
            ExprKind::Aggregate(aggregate) => {
                self.expect(&mut aggregate.expr, ValueType::Vector, "aggregation expression")?;
                if let Some(param) = &mut aggregate.param {
                    let text = aggregate.op == AggregateOp::CountValues;
                    let wanted = if text { ValueType::String } else { ValueType::Scalar };
                    self.expect(param, wanted, "aggregation parameter")?;
                }
            }
            ExprKind::Call(call) => self.call(call, pos)?,
            ExprKind::VectorSelector(selector) => self.selector(selector, pos)?,
            ExprKind::MatrixSelector(matrix) => self.selector(&matrix.selector, pos)?,
            ExprKind::Subquery(subquery) => {
                let found = self.expr(&mut subquery.expr)?;
                if found != ValueType::Vector {
                    let message =
                        format!("subquery is only allowed on instant vector, got {} instead", found.as_str());
                    return self.refuse(pos, message);
                }
            }
            ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Remote(_) => {}
        }
        // None of those that are left looks further down for its type.
        Ok(expr.value_type())
    }

    fn expect(&self, expr: &mut Expr, wanted: ValueType, context: &str) -> Checked {
        let found = self.expr(expr)?;
        if found == wanted {
            return Ok(());
        }
        self.refuse(
            expr.pos,
            format!("expected type {} in {context}, got {}", wanted.describe(), found.describe()),
        )
    }

    fn binary(&self, binary: &mut Binary, pos: Pos) -> Checked<ValueType> {
        let (left, right) = (self.expr(&mut binary.lhs)?, self.expr(&mut binary.rhs)?);
        let op = binary.op;
        if binary.return_bool && !op.is_comparison() {
            let message = "bool modifier can only be used on comparison operators";
            return self.refuse(self.operator_pos(binary), message);
        }
        let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
        if op.is_comparison() && !binary.return_bool && scalars {
            return self
                .refuse(self.operator_pos(binary), "comparisons between scalars must use BOOL modifier");
        }
        if let Some(matching) = &binary.matching
            && matching.on
            && let Some(label) = matching.labels.iter().find(|label| matching.include.contains(label))
        {
            let message = format!("label {} must not occur in ON and GROUP clause at once", quote(label));
            return self.refuse(self.operator_pos(binary), message);
        }
        for (side, found) in [(&binary.lhs, left), (&binary.rhs, right)] {
            if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                let message = "binary expression must contain only scalar and instant vector types";
                return self.refuse(side.pos, message);
            }
        }
        self.matching(binary, left == ValueType::Vector && right == ValueType::Vector, pos)?;
        Ok(if scalars { ValueType::Scalar } else { ValueType::Vector })
    }

    fn matching(&self, binary: &mut Binary, vectors: bool, pos: Pos) -> Checked {
        let op = binary.op;
        let Some(matching) = &mut binary.matching else { return Ok(()) };
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        if !vectors {
            if !matching.labels.is_empty() {
                return self.refuse(pos, "vector matching only allowed between instant vectors");
            }
            if fills {
                return self.refuse(pos, "filling in missing series only allowed between instant vectors");
            }
            if op.is_set() {
                let message =
                    format!("set operator {} not allowed in binary scalar expression", quote(op.as_str()));
                return self.refuse(pos, message);
            }
            binary.matching = None;
            return Ok(());
        }
        if op.is_set() {
            if matches!(matching.card, Cardinality::OneToMany | Cardinality::ManyToOne) {
                return self.refuse(pos, format!("no grouping allowed for {} operation", quote(op.as_str())));
            }
            if fills {
                return self.refuse(pos, "filling in missing series not allowed for set operators");
            }
            matching.card = Cardinality::ManyToMany;
        }
        Ok(())
    }

    /// Where the operator and its modifiers stand.
    fn operator_pos(&self, binary: &Binary) -> Pos {
        let between =
            self.input.get(binary.lhs.pos.end as usize..binary.rhs.pos.start as usize).unwrap_or("");
        let blanks = between.len() - between.trim_start_matches([' ', '\t', '\n', '\r']).len();
        let end = between.trim_end_matches([' ', '\t', '\n', '\r']).len();
        let start = binary.lhs.pos.end;
        Pos { start: start + blanks as u32, end: start + end.max(blanks) as u32 }
    }

    fn call(&self, call: &mut Call, pos: Pos) -> Checked {
        let signature = call.func.signature();
        let (name, found) = (quote(signature.name), call.args.len());
        let declared = signature.args.len();
        if signature.variadic == 0 {
            if declared != found {
                let message = format!("expected {declared} argument(s) in call to {name}, got {found}");
                return self.refuse(pos, message);
            }
        } else {
            let least = declared.saturating_sub(1);
            let most = usize::try_from(signature.variadic).ok().map(|extra| least + extra);
            if least > found {
                let message = format!("expected at least {least} argument(s) in call to {name}, got {found}");
                return self.refuse(pos, message);
            }
            if let Some(most) = most.filter(|most| *most < found) {
                let message = format!("expected at most {most} argument(s) in call to {name}, got {found}");
                return self.refuse(pos, message);
            }
        }
        if call.func == Function::Info && found > 1 {
            self.info_selector(&call.args[1], pos)?;
        }
        let context = format!("call to function {name}");
        for (at, arg) in call.args.iter_mut().enumerate() {
            // The second argument of `info` may select everything: it was checked above.
            if call.func == Function::Info && at == 1 {
                continue;
            }
            if let Some(wanted) = signature.args.get(at).or(signature.args.last()) {
                self.expect(arg, *wanted, &context)?;
            }
        }
        Ok(())
    }

    fn info_selector(&self, arg: &Expr, pos: Pos) -> Checked {
        let found = arg.value_type();
        if found != ValueType::Vector {
            let message = format!(
                "expected type {} in call to function \"info\", got {}",
                ValueType::Vector.describe(),
                found.describe()
            );
            return self.refuse(pos, message);
        }
        match &arg.kind {
            ExprKind::VectorSelector(selector) if selector.name.is_empty() => Ok(()),
            ExprKind::VectorSelector(_) => {
                self.refuse(arg.pos, "expected label selectors only, got vector selector instead")
            }
            _ => self.refuse(arg.pos, "expected label selectors only"),
        }
    }

    fn selector(&self, selector: &VectorSelector, pos: Pos) -> Checked {
        if selector.name.is_empty() {
            if selector.matchers.iter().all(tricord_model::Matcher::matches_empty) {
                return self.refuse(pos, "vector selector must contain at least one non-empty matcher");
            }
            return Ok(());
        }
        // The last matcher is the one made from the name in front of the braces.
        let others = &selector.matchers[..selector.matchers.len().saturating_sub(1)];
        match others.iter().find(|m| m.name == crate::parser::NAME_LABEL) {
            Some(twice) => {
                let message = format!(
                    "metric name must not be set twice: {} or {}",
                    quote(&selector.name),
                    quote(&twice.value)
                );
                self.refuse(pos, message)
            }
            None => Ok(()),
        }
    }
}
