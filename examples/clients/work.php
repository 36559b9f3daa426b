<?php
// php work.php (needs php-curl)
$pool = getenv('POOL_URL') ?: 'http://127.0.0.1:3000';
$page = getenv('PAGE_URL') ?: 'data:text/html,<title>Hello from the pool</title><h1>Hello</h1>';

function post(string $route, array $body): string
{
    global $pool;
    $call = curl_init("$pool/$route");
    curl_setopt_array($call, [
        CURLOPT_POSTFIELDS => json_encode($body),
        CURLOPT_HTTPHEADER => ['Content-Type: application/json'],
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_TIMEOUT => 90,
    ]);
    $answer = curl_exec($call);
    if (curl_getinfo($call, CURLINFO_RESPONSE_CODE) !== 200) {
        fwrite(STDERR, $answer === false ? curl_error($call) : json_decode($answer)->detail);
        exit(1);
    }
    return $answer;
}

$scraped = json_decode(post('scrape', ['url' => $page, 'elements' => [['selector' => 'title']]]));
echo $scraped->data[0]->results[0]->html, "\n";
file_put_contents('work.png', post('screenshot', ['url' => $page, 'options' => ['fullPage' => true]]));
file_put_contents('work.pdf', post('pdf', ['url' => $page, 'options' => ['format' => 'A4']]));
