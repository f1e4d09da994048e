"""What the daemon says of faults, ignored files, settings and what it is busy with, in Portuguese.

Owns a sentence and a piece of advice for each cause, a word for each kind of file that is left alone, and for each note
of a server or a download, and what the settings are warned of. Promises them for every cause that a person can see on
the page. The daemon's own words, which are in English, tell the particulars; a cause that is not here, such as one of
somebody's own backend, is told by those alone.
"""

import re
from collections.abc import Mapping
from typing import Final

_AGAIN: Final = "Costuma ser passageiro; se a tarefa parou, use `topicd retry`."
_ITSELF: Final = "O trabalho continua sozinho."
_RETRY: Final = "Use `topicd retry`: outra tentativa pode dar certo."
_LOG: Final = "Veja o log do próprio servidor; se a tarefa parou, use `topicd retry`."
_ADDRESS: Final = "Verifique o endereço do servidor: talvez outra coisa responda ali."
_RUNNING: Final = "Verifique se o servidor está no ar e se o endereço está certo."
_LOGIN: Final = "Verifique o usuário, a senha ou o token configurado para este servidor."
_FORMAT: Final = "Verifique se o endereço é mesmo o de um servidor de voz que responde em WAV."
_REMAKE: Final = "Use `topicd retry`: a parte que falta ou está danificada é feita de novo."
_FIX_TOPIC: Final = "Corrija o `topic.md` da tarefa e use `topicd retry`, ou solte o tópico de novo."
_SHORTER: Final = "Encurte o tópico ou peça mais cenas, e use `topicd retry`."
_TOKENS: Final = "Aumente o limite de tokens ou o contexto do modelo, ou peça menos cenas."
_REWORD: Final = "Escreva o tópico de outro jeito ou configure outro modelo."
_BACKEND: Final = "É um defeito do backend; se a classe é sua, corrija-a."
_VOICE: Final = "Escolha uma das vozes disponíveis ou instale a que falta."
_MODEL: Final = "Configure um modelo que o servidor tenha ou instale nele o que falta."
_SPACE: Final = "Libere espaço. " + _ITSELF
_OTHER_MODEL: Final = (
    "Ponha `language: pt-BR` no tópico. Rode `topicd fetch model qwen2.5-1.5b` e informe o arquivo em TOPICD_LLM_FILE, "
    "ou um Ollama em OLLAMA_BASE_URL; reinicie o daemon e use `topicd retry`."
)
_POLL: Final = "Os tópicos são encontrados por consultas periódicas, um pouco mais tarde."
_OTHER_URL: Final = "Procure outro endereço do arquivo."
_INSTALL: Final = "Instale o que falta (pip install 'topicd[embedded]') ou escolha outro backend."

PORTUGUESE: Final[Mapping[str, tuple[str, str]]] = {
    # the topic
    "front_matter_broken": (
        "O cabeçalho do tópico não pode ser lido.",
        "Entre as linhas ---, escreva linhas `chave: valor`; ponha entre aspas um valor com dois-pontos.",
    ),
    "front_matter_unknown": (
        "O cabeçalho do tópico tem uma chave desconhecida.",
        "Corrija o nome da chave ou apague a linha, e use `topicd retry`.",
    ),
    "front_matter_value": (
        "Uma chave do cabeçalho do tópico tem um valor que não vale.",
        "Corrija o valor no `topic.md` e use `topicd retry`.",
    ),
    "topic_empty": ("O tópico não tem palavras.", "Escreva um título e, abaixo dele, o que contar."),
    "topic_not_text": (
        "O arquivo do tópico não é texto puro.",
        "Um tópico é texto puro em UTF-8; exporte outros documentos como texto.",
    ),
    "topic_not_utf8": ("O arquivo do tópico não está em UTF-8.", "Salve-o em UTF-8 e solte-o de novo."),
    "topic_too_large": (
        "O arquivo do tópico é grande demais.",
        "Encurte-o ou aumente TOPICD_TOPIC_BYTES_MAX, e use `topicd retry`.",
    ),
    "topic_too_long": ("O tópico é longo demais.", "Fique só com o título e os pontos principais."),
    "topic_unreadable": (
        "O daemon não tem permissão para ler o tópico.",
        "Dê a permissão (chmod a+r topic.md) e use `topicd retry`.",
    ),
    # scripts
    "language_unsupported": (
        "O modelo embutido só escreve em inglês.",
        _OTHER_MODEL,
    ),
    "script_cut": ("O modelo ficou sem tokens antes do fim do roteiro.", _TOKENS),
    "script_empty": (
        "O modelo não escreveu nada que se possa narrar.",
        "Use `topicd retry` ou dê mais texto no tópico.",
    ),
    "script_invalid": ("A resposta do modelo não é um roteiro.", "Experimente um modelo maior."),
    "script_refused": ("O modelo se recusou a escrever este roteiro.", _REWORD),
    "script_unfit": ("O roteiro que veio não serve.", _RETRY),
    # audio
    "audio_cut": ("O áudio recebido acaba antes da hora.", _LOG),
    "audio_empty": ("O áudio recebido não tem som.", _LOG),
    "audio_formats_differ": (
        "Os áudios das cenas têm formatos diferentes.",
        "Apague a pasta audio/ da tarefa e use `topicd retry`: uma só voz refaz tudo.",
    ),
    "audio_of_another_script": (
        "O áudio não é deste roteiro.",
        "Mova a tarefa para spool/audio/: o áudio é feito de novo.",
    ),
    "audio_too_large": (
        "O áudio de uma cena é grande demais.",
        "Configure no backend uma taxa de amostragem menor ou um só canal.",
    ),
    "audio_unfit": ("O áudio que veio não serve.", _RETRY),
    "not_wav": ("O servidor de voz não respondeu em WAV.", _FORMAT),
    "nothing_to_speak": ("A narração não tem palavras que se possam falar.", "Dê palavras à cena."),
    "text_empty": ("A cena não tem texto para narrar.", "Dê palavras à cena."),
    "text_too_long": ("A narração de uma cena é longa demais.", _SHORTER),
    "voice_fetching": ("A voz ainda está sendo baixada.", "`topicd fetch voice` mostra o andamento; nada se perde."),
    "voice_language": (
        "A voz instalada não fala o idioma do tópico.",
        "Informe uma voz desse idioma em TOPICD_VOICE_FILE ou use um servidor Piper.",
    ),
    "voice_missing": ("A voz pedida não está disponível.", _VOICE),
    "voice_unknown": ("Não há voz com esse nome.", _VOICE),
    "voice_unreadable": (
        "A voz não pode ser carregada.",
        "Informe uma voz do Piper: NOME.onnx, com NOME.onnx.json ao lado.",
    ),
    "voices_full": (
        "As vozes guardadas já ocupam o espaço permitido.",
        "Apague algumas ou aumente TOPICD_VOICES_BYTES_MAX.",
    ),
    # pictures and the page
    "image_too_large": ("A imagem recebida é grande demais.", "Faça o backend comprimir as imagens."),
    "image_unfit": ("A imagem que veio não serve.", _RETRY),
    "no_image": ("O servidor respondeu sem imagem.", _LOG),
    "not_image": ("O que o servidor mandou não é PNG, JPEG nem WebP.", _ADDRESS),
    "page_part_damaged": ("Uma parte da página está danificada.", _REMAKE),
    "page_part_missing": ("Falta uma parte da página.", _REMAKE),
    "page_too_large": ("A página ficaria grande demais.", "Peça menos cenas ou cenas mais curtas."),
    "picture_refused": (
        "O servidor se recusou a desenhar esta imagem.",
        "Escreva o tópico de outro jeito ou desenhe com outro servidor.",
    ),
    "picture_size": ("Não é possível desenhar uma imagem desse tamanho.", "Configure outro tamanho de imagem."),
    "prompt_empty": ("Não sobrou nada do prompt da imagem.", "Diga no tópico o que a imagem deve mostrar."),
    # the job and the daemon
    "bug": (
        "Aconteceu um erro que ninguém previu.",
        "O log tem os detalhes; relate o problema, por favor. `topicd retry` tenta de novo.",
    ),
    "crash_loop": (
        "O daemon morreu várias vezes com esta tarefa em mãos.",
        "Veja o log antes de cada queda, corrija a causa e use `topicd retry`.",
    ),
    "input_trouble": (
        "A pasta de entrada não pode ser lida.",
        "O usuário do daemon precisa poder ler, escrever e entrar nela. " + _ITSELF,
    ),
    "job_damaged": (
        "Um arquivo da tarefa está danificado ou não pode ser lido.",
        "Veja a pasta da tarefa; restaure o arquivo ou solte o tópico de novo.",
    ),
    "move_refused": (
        "A tarefa não pode ser movida nem gravada.",
        "Veja o que está no caminho em output/ ou no spool, e as permissões do usuário do daemon.",
    ),
    "product_missing": ("Um arquivo já feito sumiu ou foi alterado.", _REMAKE),
    "reason_missing": ("Não está registrado por que a tarefa falhou.", "Veja a pasta da tarefa."),
    # the watch over the directories
    "directory_gone": ("Falta uma das pastas observadas.", "Crie-a de novo; reiniciar o topicd também a cria."),
    "directory_hangs": (
        "O disco de uma das pastas observadas não responde.",
        "O servidor em que ela está montada está no ar? " + _ITSELF,
    ),
    "directory_unreadable": (
        "Uma das pastas observadas não pode ser lida.",
        "Dê ao usuário do daemon as permissões r, w e x nela.",
    ),
    "instance_limit": ("Há instâncias do inotify ou arquivos abertos demais.", _POLL + " Aumente o limite."),
    "no_events": ("O sistema de arquivos não avisa das mudanças.", _POLL),
    "reader_died": ("Os avisos de mudança do kernel não podem ser lidos.", _POLL),
    "remote_file_system": ("Uma pasta é de rede, e mudanças feitas em outra máquina não dão aviso.", _POLL),
    "watch_failed": ("As pastas não podem ser observadas.", _POLL),
    "watch_limit": ("O kernel não permite observar mais pastas.", _POLL + " Aumente fs.inotify.max_user_watches."),
    # backends and servers
    "answer_cut": ("O servidor interrompeu a resposta no meio.", _AGAIN),
    "answer_short": ("O servidor mandou menos do que foi pedido.", _AGAIN),
    "answer_too_large": (
        "A resposta do servidor é grande demais.",
        "Veja no log do servidor o que ele fez desta tarefa.",
    ),
    "backend_misbehaved": ("O backend não se comportou como devia.", _BACKEND),
    "another_file": ("O arquivo do endereço não é o que se pede.", _OTHER_URL),
    "api_off": (
        "O servidor não fala a API do AUTOMATIC1111.",
        "Inicie a interface web com --api e verifique o endereço.",
    ),
    "bad_answer": ("A resposta do servidor não pode ser lida.", _ADDRESS),
    "bad_gateway": ("O gateway responde, mas o servidor atrás dele não.", _RUNNING),
    "bad_request": (
        "O servidor recusou o pedido.",
        "Mude o tópico, ou a configuração de que o servidor fala, e use `topicd retry`.",
    ),
    "bad_url": ("O endereço do servidor não é válido.", "Escreva-o como https://servidor/caminho."),
    "bad_digest": ("Um hash informado não é um hash.", "Escreva-o como sha256: seguido de 64 dígitos de 0-9a-f."),
    "bad_name": ("O nome é de um arquivo ainda incompleto.", "Dê outro nome ao arquivo."),
    "busy": ("O servidor está ocupado.", "Nada: o trabalho continua sozinho."),
    "ca_file": ("O arquivo da autoridade certificadora não pode ser lido.", "Verifique SSL_CA_FILE."),
    "connect_failed": ("O servidor não pôde ser alcançado.", _RUNNING),
    "connect_refused": ("O servidor recusa conexões.", _RUNNING),
    "connect_timeout": ("O servidor não aceitou a conexão a tempo.", _RUNNING),
    "connection_reset": ("O servidor fechou a conexão sem responder.", _RUNNING),
    "digest_mismatch": (
        "O arquivo baixado não é o esperado.",
        "O topicd começa de novo; se persistir, use outro endereço.",
    ),
    "dns_failed": ("O nome do servidor não foi encontrado na rede.", _RUNNING),
    "embedded_missing": ("Falta um pacote dos backends embutidos.", _INSTALL),
    "file_changed": ("O arquivo mudou no servidor durante o download.", _AGAIN),
    "file_too_large": ("O arquivo a baixar é grande demais.", _OTHER_URL),
    "forbidden": ("O servidor negou o acesso.", _LOGIN),
    "free_timeout": ("O servidor não liberou a GPU a tempo.", _ITSELF),
    "gateway_timeout": ("O gateway desistiu de esperar pelo servidor.", _AGAIN),
    "image_by_url": (
        "O servidor manda o endereço da imagem, e não a imagem.",
        "Configure-o para responder com b64_json.",
    ),
    "length_unknown": (
        "O servidor não diz o tamanho do arquivo: não há como saber se veio inteiro.",
        "Informe o hash ou procure outro endereço do arquivo.",
    ),
    "method_not_allowed": ("O servidor não aceita este tipo de pedido.", _ADDRESS),
    "model_missing": ("O modelo pedido não está disponível.", _MODEL),
    "model_pulling": ("O modelo ainda está sendo baixado.", "Nada: o trabalho continua sozinho."),
    "model_unfit": ("O modelo escolhido não escreve texto.", "Configure em OLLAMA_MODEL um modelo que escreva."),
    "model_unknown": ("O modelo pedido não está na tabela.", "`topicd fetch models` mostra os que há."),
    "model_unreadable": (
        "O modelo não pode ser carregado.",
        "Informe em TOPICD_LLM_FILE um arquivo GGUF que funcione.",
    ),
    "not_ollama": ("O servidor não responde como o Ollama.", _ADDRESS),
    "not_piper": ("O servidor não responde como o Piper.", _ADDRESS + " É preciso piper-tts 1.3 ou mais novo."),
    "not_found": ("O servidor não conhece este caminho.", _ADDRESS),
    "own_rate_limit": ("O limite de chamadas configurado foi atingido.", "Nada: o trabalho continua sozinho."),
    "part_changed": ("O download foi alterado no disco enquanto era gravado.", _AGAIN),
    "probe_timeout": ("O servidor não disse a tempo o que ele é.", "Veja o log do servidor."),
    "prompt_template": (
        "Um modelo de prompt em prompts/ não pode ser usado.",
        "Corrija-o ou apague-o; sem ele vale o que vem com o topicd.",
    ),
    "proxy_unauthorized": ("O proxy recusou o acesso.", "Verifique o usuário e a senha do proxy."),
    "pull_failed": (
        "O Ollama não consegue baixar o modelo.",
        "Verifique o nome do modelo, e se o Ollama alcança o seu registro e tem espaço. " + _ITSELF,
    ),
    "rate_limited": ("O servidor recebeu pedidos demais.", _AGAIN),
    "read_timeout": ("O servidor ficou tempo demais sem responder.", _AGAIN),
    "redirected": ("O servidor redireciona para outro endereço.", "Configure o endereço para o qual ele redireciona."),
    "refused": ("O servidor recusou o pedido.", _ADDRESS),
    "request_failed": ("O pedido ao servidor falhou.", _AGAIN),
    "request_timeout": ("O servidor desistiu de esperar pelo pedido.", _AGAIN),
    "request_too_large": (
        "O pedido é grande demais para o servidor.",
        "Encurte o tópico ou aumente o limite do servidor, e use `topicd retry`.",
    ),
    "sampler_or_model_missing": (
        "O servidor não tem o sampler ou o modelo pedido.",
        "Compare os nomes com os do servidor.",
    ),
    "server_died": (
        "O servidor caiu de novo nesta tarefa.",
        "Veja o log do servidor: talvez falte memória. `topicd retry` tenta de novo.",
    ),
    "server_error": ("O servidor teve um erro interno.", _LOG),
    "stream_error": ("O servidor interrompeu a resposta com um erro.", _LOG),
    "timeout": (
        "O backend não respondeu a tempo.",
        "Se ele só é lento, aumente o TOPICD_…_TIMEOUT_S do estágio.",
    ),
    "tls_failed": ("A conexão segura com o servidor falhou.", "Confira se o endereço é http:// ou https://."),
    "tls_untrusted": (
        "O certificado do servidor não é confiável.",
        "Informe em SSL_CA_FILE a autoridade que o assinou ou corrija o certificado.",
    ),
    "too_early": ("O servidor pediu para esperar um pouco.", _AGAIN),
    "total_timeout": ("A chamada ao servidor demorou demais.", _AGAIN),
    "two_passwords": (
        "Há duas senhas para o mesmo servidor: uma no endereço e um token.",
        "Tire uma delas ou mande o token em outro cabeçalho.",
    ),
    "unauthorized": ("O servidor não aceitou a identificação.", _LOGIN),
    "wav_format": ("O WAV do servidor não é PCM de 16 bits.", "Faça o servidor responder em WAV de 16 bits."),
    "worker_crashed": ("O processo do backend embutido morreu.", "Veja o log: talvez falte memória. " + _AGAIN),
    "worker_error": ("O backend embutido teve um erro.", "Veja o log. " + _AGAIN),
    "worker_reply": ("O backend embutido deu uma resposta inválida.", _AGAIN),
    "worker_timeout": ("O backend embutido não respondeu a tempo.", _AGAIN),
    # the disk
    "disk_error": ("O disco não guarda o que foi baixado.", _SPACE),
    "disk_full": ("O disco está cheio.", _SPACE),
    "disk_hangs": (
        "O disco não responde.",
        "Veja o log do kernel e, se o disco é de rede, o servidor dele. " + _ITSELF,
    ),
    "disk_low": ("Há pouco espaço livre no disco.", "Libere espaço ou diminua TOPICD_MIN_FREE_BYTES. " + _ITSELF),
    "io_error": ("O disco deu um erro de leitura ou gravação.", "Veja o log do kernel: o disco pode estar falhando."),
    "out_of_memory": ("Falta memória.", "Dê mais memória ao daemon."),
    "page_part_unreadable": ("Um arquivo da tarefa não pode ser lido.", _ITSELF),
    "read_only": ("O disco está montado só para leitura.", "Monte-o com permissão de gravação. " + _ITSELF),
    "spool_replaced": (
        "O spool não é mais o diretório com que este daemon começou.",
        "O sistema de arquivos está montado? Para trabalhar neste diretório, reinicie o topicd.",
    ),
    "spool_trouble": (
        "O spool não pode ser usado.",
        "O sistema de arquivos está montado? O usuário do daemon pode gravar nele? " + _ITSELF,
    ),
    "too_many_open_files": ("Há arquivos abertos demais.", "Aumente o limite (ulimit -n, LimitNOFILE=)."),
    "too_many_processes": ("Há processos demais.", "Aumente o limite (TasksMax=, pids_limit)."),
}

KINDS: Final[Mapping[str, str]] = {
    "symbolic link": "link simbólico",
    "directory": "pasta",
    "named pipe": "pipe nomeado",
    "socket": "socket",
    "device": "dispositivo",
    "not a .md or .txt file": "não é um arquivo .md nem .txt",
}

NOTES: Final[Mapping[str, str]] = {
    "another process fetches it": "outro processo o está baixando",
    "begins": "começando",
    "verifies": "conferindo",
    "verifies what is there": "conferindo o que já existe",
    "waits for its turn": "aguardando a vez",
}
WARNINGS: Final = (
    (
        re.compile(r"certificates of servers are not checked \(SSL_VERIFY=false\)"),
        "os certificados dos servidores não são verificados (SSL_VERIFY=false)",
    ),
    (
        re.compile(r"(\w+) is set and not used; was (\w+) meant\?"),
        r"\1 está configurado e não é usado; seria \2?",
    ),
)
BUSY: Final[Mapping[str, str]] = {"drawing:": "desenhando:", "pulling": "baixando"}
"""First words of notes that go on with a name or a share."""
