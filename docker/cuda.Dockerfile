# pairmill with Beam's worker, on NVIDIA GPUs: `--device cuda`, and `--compile` with the compiler that it needs.
# PyTorch's package holds CUDA itself; the machine has the driver and NVIDIA's container toolkit.
#
#     docker build -f docker/cuda.Dockerfile -t pairmill-cuda .
#     docker run --rm --gpus all --entrypoint pairmill pairmill-cuda encode --device cuda ...

ARG PYTHON=3.11
ARG BEAM=2.77.0
FROM apache/beam_python${PYTHON}_sdk:${BEAM} AS beam

FROM python:${PYTHON}-slim
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY --from=beam /opt/apache/beam /opt/apache/beam
WORKDIR /opt/pairmill
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt torch
COPY LICENSE MANIFEST.in README.md pyproject.toml setup.cfg setup.py ./
COPY models models
COPY pipeline pipeline
COPY beam_jobs beam_jobs
RUN pip install --no-cache-dir -c constraints.txt '.[pipeline,gcp,s3,remote]'
ENTRYPOINT ["/opt/apache/beam/boot"]
