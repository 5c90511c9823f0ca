# peftmark on a CPU, in the folder that is mounted:
#   docker build -t peftmark .
#   docker run --rm -v "$PWD:/work" peftmark run smoke
# The folder must be writable for the user 1000.
#
# The base is named by its tag, not by a digest: a digest that was not read from the registry itself
# would be a guess, and none could be read where this was written. What is put on it is held to
# constraints.txt, and all but torch to hashes (docs/platforms.md).
FROM python:3.11-slim-bookworm

# Where torch comes from. Empty: pip's own index, whose build for x86-64 brings CUDA's libraries; an
# index with builds for CPUs alone makes a smaller image.
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

WORKDIR /src
COPY constraints.txt .ci/requirements.lock ./
RUN pip install --require-hashes --no-deps -r requirements.lock \
    && pip install -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY pyproject.toml README.md LICENSE ./
COPY bench bench
COPY suites suites
COPY results/published results/published
RUN PIP_CONSTRAINT=/src/constraints.txt pip install --no-deps .

RUN useradd --create-home --uid 1000 peftmark && install -d -o peftmark /work
USER peftmark
WORKDIR /work
ENTRYPOINT ["peftmark"]
CMD ["--help"]
