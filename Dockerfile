# An image of `lorgnette serve`, from the wheel:  make wheel && docker build -t lorgnette .
# For a GPU: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
FROM python:3.11-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /app
COPY dist/lorgnette-*.whl constraints.txt ./
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -c constraints.txt torch
RUN pip install --no-cache-dir -c constraints.txt "$(ls lorgnette-*.whl)[serve]"
RUN rm lorgnette-*.whl constraints.txt
USER 10001
ENV HOME=/tmp HF_HUB_OFFLINE=1
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --start-period=120s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["lorgnette", "serve"]
CMD ["/model", "--host", "0.0.0.0"]
