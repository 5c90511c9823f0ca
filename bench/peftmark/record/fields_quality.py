"""Rows of `peftmark.record.fields`: how a job ended, and how good what it trained is."""

from __future__ import annotations

from peftmark.record.field import Field

ROWS: tuple[Field, ...] = (
    Field(
        "status",
        "string",
        "status",
        phase="whole job",
        meter="worker, supervisor",
        kind="fact",
        section="Validity",
        summary=(
            "how the attempt ended: `ok`, `out_of_memory`, `timed_out`, `diverged`, `crashed`, "
            "`invalid`, `unsupported`, `interrupted`"
        ),
        null="",
    ),
    Field(
        "status_reason",
        "string",
        "reason of the status",
        phase="whole job",
        meter="worker, supervisor",
        kind="fact",
        section="Validity",
        summary="worker or supervisor, in words; empty for `ok`",
        null="",
    ),
    Field(
        "metric_name",
        "string",
        "primary metric",
        phase="plan",
        meter="the task",
        kind="fact",
        section="Quality",
        summary="primary metric of the task",
        null="",
    ),
    Field(
        "metric_value",
        "float64",
        "score",
        unit="by metric",
        better="higher",
        phase="evaluation",
        meter="scoring",
        kind="quality",
        section="Quality",
        summary="primary metric after the last step",
    ),
    Field(
        "selected_metric_value",
        "float64",
        "score at the selected step",
        unit="by metric",
        better="higher",
        phase="evaluation",
        meter="scoring",
        kind="quality",
        section="Quality",
        summary="evaluation rows at `selected_step`",
        null="no selection rows, tuning trial, job ended early",
    ),
    Field(
        "selected_step",
        "int64",
        "selected step",
        unit="steps",
        phase="evaluation",
        meter="scoring",
        kind="fact",
        section="Quality",
        summary="step of the first curve point with the best selection metric",
        null="no selection rows, tuning trial, job ended early",
    ),
    Field(
        "selection_metric_value",
        "float64",
        "score on selection rows",
        unit="by metric",
        better="higher",
        phase="evaluation",
        meter="scoring",
        kind="quality",
        section="Quality",
        summary="selection rows at `selected_step`",
        null="no selection rows, tuning trial, job ended early",
    ),
    Field(
        "best_metric_value",
        "float64",
        "best score",
        unit="by metric",
        better="higher",
        phase="evaluation",
        meter="scoring",
        kind="quality",
        section="Quality",
        summary=(
            "best evaluation value of the curve; picked on the rows it is measured on, so it "
            "flatters"
        ),
    ),
    Field(
        "baseline_value",
        "float64",
        "score of the baseline predictor",
        unit="by metric",
        phase="data",
        meter="scoring",
        kind="quality",
        section="Quality",
        summary=(
            "majority class, or mean, of the training labels on the evaluation rows; where text "
            "is written the commonest training answer, where it is read how often each token "
            "stands in the training rows; where probabilities are scored the classes' shares, for "
            "the mean absolute error the median"
        ),
        null="a metric of one's own has none for it, job ended early",
    ),
    Field(
        "metrics",
        "json",
        "all metrics",
        unit="by metric",
        phase="evaluation",
        meter="scoring",
        deterministic=True,
        kind="quality",
        section="Quality",
        summary="every metric of the task after the last step",
        null="empty if the job ended early",
    ),
    Field(
        "predictions",
        "numbers",
        "predictions",
        unit="class number or score, fp32",
        phase="evaluation",
        meter="the model",
        kind="fact",
        section="Quality",
        summary=(
            "every evaluation row after the last step, in the order of the rows; where text is "
            "written or read, what the row gives the primary metric: 1 or 0 for exact match, "
            "its ROUGE-L, or its log-likelihood a token in nats; of several labels 1 or 0 for each "
            "of them, row after row"
        ),
        null="empty if the job ended early",
    ),
    Field(
        "references",
        "numbers",
        "labels",
        unit="class number or score, fp32",
        phase="data",
        meter="the rows",
        kind="fact",
        section="Quality",
        summary=(
            "labels of the evaluation rows, in the order of `predictions`; where text is "
            "written 1, where it is read the number of predicted tokens, which weigh the rows; of "
            "several labels 1 or 0 for each of them"
        ),
        null="empty if the job ended early",
    ),
    Field(
        "completions",
        "strings",
        "completions",
        unit="text",
        phase="evaluation",
        meter="the model",
        deterministic=True,
        kind="fact",
        section="Quality",
        summary=(
            "what the model wrote for each evaluation row after the last step, in the same "
            "order, greedily and up to `new_tokens` tokens"
        ),
        null=(
            "empty where no answers are written, if the job ended early, and for rows of the "
            "user's own without `--show-texts`, as the reason then says"
        ),
    ),
    Field(
        "unrelated_perplexity_before",
        "float64",
        "perplexity of unrelated text before",
        unit="perplexity",
        better="lower",
        phase="loading",
        meter="scoring",
        deterministic=True,
        kind="quality",
        section="Quality",
        summary=(
            "phase `forget`: the base as it is loaded, quantised where the cell says so, on "
            "text that has nothing to do with the task"
        ),
        null="encoder, tuning trial, job ended early",
    ),
    Field(
        "unrelated_perplexity_after",
        "float64",
        "perplexity of unrelated text after",
        unit="perplexity",
        better="lower",
        phase="evaluation",
        meter="scoring",
        deterministic=True,
        kind="quality",
        section="Quality",
        summary=(
            "phase `forget`: the trained model on the text of `unrelated_perplexity_before`; of "
            "the untouched base the same figure"
        ),
        null="encoder, tuning trial, job ended early",
    ),
    Field(
        "generated_tokens_per_second",
        "float64",
        "written tokens a second",
        unit="tokens a second",
        better="higher",
        phase="evaluation",
        meter="clock",
        kind="cost",
        section="Time",
        summary=(
            "phase `generate`, all passes: tokens written up to the end of each answer, those "
            "after it in a batch not counted"
        ),
        null="no answers are written, job ended early, GPU shared with other jobs",
    ),
    Field(
        "target_value",
        "float64",
        "target",
        unit="by metric",
        phase="plan",
        meter="suite file",
        kind="fact",
        section="Quality",
        summary="the score that the suite asks of the task",
        null="suite sets no target",
    ),
    Field(
        "target_reached",
        "bool",
        "target reached",
        phase="evaluation",
        meter="scoring",
        kind="quality",
        section="Quality",
        summary="whether a curve point reached `target_value`",
        null="suite sets no target, job ended early",
    ),
    Field(
        "steps_to_target",
        "int64",
        "steps to the target",
        unit="steps",
        better="lower",
        phase="evaluation",
        meter="scoring",
        kind="cost",
        section="Quality",
        summary="first curve point at or past the target",
        null="target not reached, none set, job ended early",
    ),
    Field(
        "collapsed",
        "bool",
        "collapsed",
        phase="evaluation",
        meter="the model",
        kind="fact",
        section="Validity",
        summary=(
            "whether the last predictions (the answers, where some are written) are all the "
            "same; never where text is read, and not known where every row has the same label"
        ),
    ),
    Field(
        "exploding_step",
        "int64",
        "step of exploding gradients",
        unit="step",
        phase="training",
        meter="gradient norms",
        kind="fact",
        section="Validity",
        summary="first step that ends three rises in a row of the gradient norm by more than half",
        null="it never happened (the normal case), job ended early",
    ),
    Field(
        "loss",
        "float64",
        "training loss",
        better="lower",
        phase="training",
        meter="the task's loss",
        kind="quality",
        section="Quality",
        summary=(
            "the task's own loss, mean over the last interval of the curve; never with a "
            "penalty inside; of a language model a token of the answer (of the text), prompt "
            "masked"
        ),
    ),
    Field(
        "penalty",
        "float64",
        "penalty",
        phase="training",
        meter="the method's loss term",
        kind="fact",
        section="Quality",
        summary="the method's own loss term, weighted, mean over the last interval of the curve",
        null="method adds none, job ended early",
    ),
)
