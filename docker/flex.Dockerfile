# Dataflow Flex Template: pairmill's image with the launcher of templates. The same image runs launcher and workers.
#
#     docker build -f docker/flex.Dockerfile --build-arg IMAGE=pairmill -t pairmill-flex .

ARG IMAGE=pairmill
FROM gcr.io/dataflow-templates-base/python311-template-launcher-base AS launcher

FROM ${IMAGE}
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
COPY docker/flex_template.py ./
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/pairmill/flex_template.py
