"""Rows of `peftmark.record.fields`: memory, as every meter saw it."""

from __future__ import annotations

from peftmark.record.field import LIVE_PARTS, Field

TITLES = {part.column: part.title for part in LIVE_PARTS}

ROWS: tuple[Field, ...] = (
    Field(
        "peak_memory_bytes",
        "int64",
        "peak memory",
        unit="bytes",
        better="lower",
        phase="whole job",
        meter="as `peak_memory_source` says",
        kind="cost",
        section="Memory",
        summary="`torch_allocated_bytes` on a GPU, `live_bytes` elsewhere",
        null="that column is null",
    ),
    Field(
        "peak_memory_source",
        "string",
        "meter of the peak memory",
        phase="whole job",
        meter="the device",
        kind="fact",
        section="Memory",
        summary="name of the column that `peak_memory_bytes` is",
        null="that column is null",
    ),
    Field(
        "live_bytes",
        "int64",
        "peak of live tensors",
        unit="bytes",
        better="lower",
        phase="probe",
        meter="live tensors",
        deterministic=True,
        exact=True,
        kind="cost",
        section="Memory",
        summary=(
            "phase `probe`: peak of all living tensor storages in three steps, the last on the "
            "run's largest batch; sum of its seven parts below"
        ),
        null="tuning trial, job ended early",
    ),
    Field(
        "live_weight_bytes",
        "int64",
        TITLES["live_weight_bytes"],
        unit="bytes",
        phase="probe",
        meter="live tensors",
        exact=True,
        kind="count",
        section="Memory",
        summary="frozen weights (4-bit ones packed) and buffers at the peak",
        null="tuning trial, job ended early",
    ),
    Field(
        "live_quantization_bytes",
        "int64",
        TITLES["live_quantization_bytes"],
        unit="bytes",
        phase="probe",
        meter="live tensors",
        exact=True,
        kind="count",
        section="Memory",
        summary="block constants and code books at the peak",
        null="tuning trial, job ended early",
    ),
    Field(
        "live_adapter_bytes",
        "int64",
        TITLES["live_adapter_bytes"],
        unit="bytes",
        phase="probe",
        meter="live tensors",
        exact=True,
        kind="count",
        section="Memory",
        summary=(
            "trainable parameters, head included, at the peak; every trained weight of full "
            "fine-tuning"
        ),
        null="tuning trial, job ended early",
    ),
    Field(
        "live_gradient_bytes",
        "int64",
        TITLES["live_gradient_bytes"],
        unit="bytes",
        phase="probe",
        meter="live tensors",
        exact=True,
        kind="count",
        section="Memory",
        summary="gradients at the peak",
        null="tuning trial, job ended early",
    ),
    Field(
        "live_optimizer_bytes",
        "int64",
        TITLES["live_optimizer_bytes"],
        unit="bytes",
        phase="probe",
        meter="live tensors",
        exact=True,
        kind="count",
        section="Memory",
        summary="what a step leaves behind (states of optimizer and method) at the peak",
        null="tuning trial, job ended early",
    ),
    Field(
        "live_activation_bytes",
        "int64",
        TITLES["live_activation_bytes"],
        unit="bytes",
        phase="probe",
        meter="live tensors",
        exact=True,
        kind="count",
        section="Memory",
        summary=(
            "of the peak, what is there when the backward pass starts: what it needs, and the batch"
        ),
        null="tuning trial, job ended early",
    ),
    Field(
        "live_temporary_bytes",
        "int64",
        TITLES["live_temporary_bytes"],
        unit="bytes",
        phase="probe",
        meter="live tensors",
        exact=True,
        kind="count",
        section="Memory",
        summary="all else at the peak, with what checkpointing computes again",
        null="tuning trial, job ended early",
    ),
    Field(
        "predicted_live_bytes",
        "int64",
        "predicted peak of live tensors",
        unit="bytes",
        better="lower",
        phase="prediction",
        meter="tensors without values",
        kind="cost",
        section="Memory",
        summary=(
            "`live_bytes`, predicted on tensors without values, from the model's configuration "
            "alone ([memory.md](memory.md))"
        ),
        null="job or its probe ended early, values decide the step, GPU of Intel",
    ),
    Field(
        "prediction_error",
        "float64",
        "prediction error",
        unit="share",
        phase="prediction",
        meter="tensors without values",
        kind="fact",
        section="Memory",
        summary="`predicted_live_bytes` over `live_bytes`, less one",
        null="job or its probe ended early, values decide the step, GPU of Intel",
    ),
    Field(
        "torch_allocated_bytes",
        "int64",
        "memory allocated by torch",
        unit="bytes",
        better="lower",
        phase="training",
        meter="torch's CUDA allocator",
        kind="cost",
        section="Memory",
        summary="torch's allocator of the GPU: peak handed out, phases `warm_up` and `train`",
        null="job on the CPU, job ended early",
    ),
    Field(
        "torch_reserved_bytes",
        "int64",
        "memory reserved by torch",
        unit="bytes",
        better="lower",
        phase="training",
        meter="torch's CUDA allocator",
        kind="cost",
        section="Memory",
        summary=(
            "torch's allocator of the GPU: peak held, phases `warm_up` and `train`; "
            "blocks kept from an evaluation may be among them"
        ),
        null="job on the CPU, job ended early",
    ),
    Field(
        "summed_peak_bytes",
        "int64",
        "memory of all devices",
        unit="bytes",
        better="lower",
        phase="training",
        meter="torch's CUDA allocator, VmHWM",
        kind="cost",
        section="Memory",
        summary=(
            "of a job on several devices: `torch_allocated_bytes` (on a CPU `vmhwm_train_bytes`) "
            "of each of its processes, added up; those columns themselves are of the largest"
        ),
        null="one process trained the job, job ended early",
    ),
    Field(
        "nvml_process_bytes",
        "int64",
        "process memory by NVML",
        unit="bytes",
        better="lower",
        phase="whole job",
        meter="NVML, sampled",
        kind="cost",
        section="Memory",
        summary=(
            "supervisor, every 0.2 s over the worker's life: most the driver lists for the "
            "worker; without managed memory, so a lower bound with a paged optimizer"
        ),
        null=(
            "job on the CPU, GPU of AMD or Intel, NVML absent or lost, driver doesn't list the "
            "worker, process that ran other jobs before"
        ),
    ),
    Field(
        "nvml_device_bytes",
        "int64",
        "device memory by NVML",
        unit="bytes",
        better="lower",
        phase="whole job",
        meter="NVML, sampled",
        kind="cost",
        section="Memory",
        summary=(
            "supervisor, every 0.2 s over the worker's life: highest rise of the device's used "
            "memory over the reading before the worker started"
        ),
        null=(
            "job on the CPU, GPU of AMD or Intel, NVML absent or lost, process that ran other jobs "
            "before, GPU shared with other jobs"
        ),
    ),
    Field(
        "vmhwm_bytes",
        "int64",
        "resident memory, whole life",
        unit="bytes",
        better="lower",
        phase="whole job",
        meter="VmHWM",
        kind="cost",
        section="Memory",
        summary="VmHWM of the worker over its whole life",
        null="no /proc, process that ran other jobs before, job ended early",
    ),
    Field(
        "vmhwm_train_bytes",
        "int64",
        "resident memory in training",
        unit="bytes",
        better="lower",
        phase="training",
        meter="VmHWM",
        kind="cost",
        section="Memory",
        summary="VmHWM in phases `warm_up` and `train`, restarted at their edges",
        null="no /proc, process that ran other jobs before, job ended early",
    ),
    Field(
        "rss_before_train_bytes",
        "int64",
        "resident memory before training",
        unit="bytes",
        better="lower",
        phase="training",
        meter="VmRSS",
        kind="cost",
        section="Memory",
        summary="VmRSS before the first step",
        null="no /proc, process that ran other jobs before, job ended early",
    ),
)
