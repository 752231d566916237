# ossicle on a CPU, not as root: `docker build -t ossicle .`, then
#   docker run --rm -v "$PWD:/clips:ro" ossicle ask /clips/yours.wav "What do you hear?"
#   docker run --rm -p 8000:8000 -e OSSICLE_API_KEY=secret ossicle
FROM python:3.12-slim

RUN apt-get update && apt-get install -y --no-install-recommends espeak-ng && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 ossicle

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
# For the much smaller CPU build of torch: --build-arg PIP_FLAGS="--extra-index-url <PyTorch's CPU index>"
ARG PIP_FLAGS=""
RUN pip install --no-cache-dir -c constraints.txt $PIP_FLAGS ".[serve,ui]"

USER ossicle
WORKDIR /home/ossicle
EXPOSE 8000
HEALTHCHECK CMD python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=3)"
ENTRYPOINT ["ossicle"]
CMD ["serve", "nano", "--host", "0.0.0.0", "--port", "8000"]
